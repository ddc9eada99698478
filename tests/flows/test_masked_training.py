"""Rounds in which local training moves what is sent and nothing else."""

import numpy as np
import pytest

from federated.rounds.context import RoundContext
from federated.run.update_files import read_memory, read_state
from tests.flows.conftest import kept_at, run_context

pytestmark = pytest.mark.usefixtures("plainly")

SENT = ["compression.name=shared_mask", "compression.density=0.1", "compression.train=sent"]


def compression_context(folder):
    return RoundContext(run_context(folder), read_state(folder.state_path(0))).compression_context


def test_nothing_stays_behind_but_statistics(run):
    folder = run(overrides=[*SENT, "model.norm=batch"], rounds=1)
    before, after = read_state(folder.state_path(0)), read_state(folder.state_path(1))
    positions = folder.experiment().compression.positions(compression_context(folder))
    moved = np.flatnonzero(before.weights != after.weights)
    assert np.isin(moved, positions).all()
    # Positions of units that no case reached, or whose gradient is zero, stay.
    assert len(moved) > 0.8 * len(positions)
    residual = read_memory(kept_at(folder, "site-00").latest_memory(1, "residual"))["residual"]
    by_name = before.layout.split(residual)
    left = {name for name, part in by_name.items() if np.abs(part).max() > 1e-6}
    assert left == {name for name in by_name if "running" in name}


def test_a_strategys_own_values_and_personal_tensors_are_left_alone(run):
    """SCAFFOLD sends twice as many values; FedBN keeps its norms at the sites."""
    folder = run(overrides=[*SENT, "strategy.name=scaffold"], rounds=1)
    before, after = read_state(folder.state_path(0)), read_state(folder.state_path(1))
    positions = folder.experiment().compression.positions(compression_context(folder))
    first = positions[positions < before.layout.size]
    assert len(first) < len(positions)
    assert np.isin(np.flatnonzero(before.weights != after.weights), first).all()

    folder = run(overrides=[*SENT, "strategy.name=fedbn"], rounds=1)
    personal = read_memory(kept_at(folder, "site-00").latest_memory(1))["personal"]
    start = read_state(folder.state_path(0))
    assert (personal != start.weights[~start.layout.shared]).mean() > 0.5
