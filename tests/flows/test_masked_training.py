"""Rounds in which local training moves what is sent and nothing else."""

import numpy as np
import pytest
from federated.stages.context import read_round

from federated.run.update_files import read_memory, read_state

pytestmark = pytest.mark.usefixtures("prefect_server")

SENT = ["compression.name=shared_mask", "compression.density=0.1", "compression.train=sent"]


def test_nothing_stays_behind_but_statistics(run):
    folder = run(overrides=[*SENT, "model.norm=batch"], rounds=1)
    before, after = read_state(folder.state_path(0)), read_state(folder.state_path(1))
    positions = folder.experiment().compression.positions(read_round(folder, 1).compression_context)
    moved = np.flatnonzero(before.weights != after.weights)
    assert np.isin(moved, positions).all()
    # Positions of units that no case reached, or whose gradient is zero, stay.
    assert len(moved) > 0.8 * len(positions)
    residual = read_memory(folder.latest_memory("site-00", 1, "residual"))["residual"]
    by_name = before.layout.split(residual)
    left = {name for name, part in by_name.items() if np.abs(part).max() > 1e-6}
    assert left == {name for name in by_name if "running" in name}


def test_a_strategys_own_values_and_personal_tensors_are_left_alone(run):
    """SCAFFOLD sends twice as many values; FedBN keeps its norms at the sites."""
    folder = run(overrides=[*SENT, "strategy.name=scaffold"], rounds=1)
    before, after = read_state(folder.state_path(0)), read_state(folder.state_path(1))
    positions = folder.experiment().compression.positions(read_round(folder, 1).compression_context)
    first = positions[positions < before.layout.size]
    assert len(first) < len(positions)
    assert np.isin(np.flatnonzero(before.weights != after.weights), first).all()

    folder = run(overrides=[*SENT, "strategy.name=fedbn"], rounds=1)
    personal = read_memory(folder.latest_memory("site-00", 1))["personal"]
    start = read_state(folder.state_path(0))
    assert (personal != start.weights[~start.layout.shared]).mean() > 0.5
