"""Killing a run and resuming it gives the weights of a run that was never killed."""

import os
import signal

import numpy as np
import pytest

from federated.run.folder import RunFolder
from federated.run.runs import latest_run
from federated.run.update_files import read_state
from tests.system.conftest import kill_group, wait_for

pytestmark = pytest.mark.system


def weights(folder: RunFolder) -> np.ndarray:
    return read_state(folder.state_path(4)).weights


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_says_how_to_go_on_and_nothing_else(copy, start, told):
    """As by Ctrl-C, or by a scheduler: every process of the group gets the signal."""
    process = start("consilium", "run", "demo", "--rounds", "40")
    wait_for(process, "round 1/40")
    os.killpg(process.pid, told)
    *rounds, last = process.stdout.read().splitlines()
    assert last.startswith("Stopped. Complete rounds are kept; go on with: consilium resume")
    assert all(line.startswith("round ") for line in rounds)
    assert process.wait(timeout=30) == 130


def test_a_killed_run_resumes_to_the_same_weights(copy, call, start, prefect_server):
    call("consilium", "run", "demo", "--rounds", "4", PREFECT_API_URL=prefect_server)
    whole = latest_run(copy / "runs", "demo")

    process = start("consilium", "run", "demo", "--rounds", "4")
    wait_for(process, "round 2/4")
    kill_group(process)
    killed = latest_run(copy / "runs", "demo")
    assert killed.root != whole.root
    assert 2 <= killed.done_rounds() < 4
    assert not killed.summary_path.exists()

    said = call("consilium", "resume", "demo", PREFECT_API_URL=prefect_server)
    assert f"run demo/{killed.run_id}" in said
    assert killed.done_rounds() == 4
    np.testing.assert_array_equal(weights(whole), weights(killed))
    assert killed.summary_path.is_file()
