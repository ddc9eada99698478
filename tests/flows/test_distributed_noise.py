"""Rounds whose sum alone carries the whole noise."""

import json

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run.update_files import read_layout
from tests.flows.conftest import run_context, weights

pytestmark = pytest.mark.usefixtures("plainly", "in_process")

NOISE = [
    "privacy.name=site_level_distributed",
    "privacy.clip=1",
    "privacy.epsilon_per_round=6",
    "privacy.noise=seeded",
    "compression.bits=16",
    "runner.name=processes",
]
PROTECTIONS = ["secagg_plus", "rlwe_secagg", "packed_bfv", "ckks"]


def test_the_sum_is_the_same_under_every_protection_and_accounted_for(run, known):
    folders = [run(overrides=[*NOISE, f"protection.name={p}"], rounds=1) for p in PROTECTIONS]
    for other in folders[1:]:
        np.testing.assert_array_equal(weights(folders[0]), weights(other))
    layout = read_layout(folders[0].state_path(1))
    grid = run_context(folders[0]).grid(layout)
    privacy = json.loads(folders[0].summary_path.read_text())["privacy"]
    assert (privacy["unit"], privacy["accountant"], privacy["missing"]) == ("site", "rdp", 1)
    assert privacy["epsilon_per_round"] == pytest.approx(6, rel=0.01)
    before = run(overrides=["training.lr=1e-12", *NOISE, "protection.name=packed_bfv"], rounds=1)
    moved = weights(before) - weights(known(1, "training.lr=1e-12"))
    # Three shares of noise and hardly an update.
    assert moved.std() == pytest.approx(grid.sigma * grid.step * np.sqrt(3), rel=0.05)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_sites_open_no_sum_with_too_little_noise(run, failing, protection):
    settings = [*NOISE, f"protection.name={protection}", "sites.on_dropout=continue"]
    settings += ["protection.min_sites=2"]
    failing("protect site-01 1")
    folder = run(overrides=settings, rounds=1)
    assert folder.records()[0]["sites"] == ["site-00", "site-02"]
    with pytest.raises(ConsiliumError, match=r"2 of 3 sites has less noise.*privacy\.missing=1 "):
        run(overrides=[*settings, "privacy.missing=0"], rounds=1)


def test_a_round_that_is_made_again_has_noise_of_its_own(run):
    """Other sites may come to it: from two sums with the same noise their updates would follow."""
    settings = [item for item in NOISE if "noise=" not in item]
    folder = run(overrides=[*settings, "protection.name=secagg_plus"], rounds=1)
    first = weights(folder)
    (folder.round_path(1) / "round.json").unlink()
    again = run(resume=folder.run_id, rounds=1)
    assert (weights(again) != first).mean() > 0.5
    summary = json.loads(again.summary_path.read_text())["privacy"]
    assert summary["epsilon"] > summary["epsilon_per_round"]
