"""Killing a run and resuming it gives the weights of a run that was never killed."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from federated.run.folder import RunFolder
from federated.run.runs import latest_run
from federated.run.update_files import read_state
from flows.round import fl_round
from tests.conftest import NOT_WRITTEN_DOWN
from tests.system.conftest import kill_group, wait_for

pytestmark = pytest.mark.system


def weights(folder: RunFolder) -> np.ndarray:
    return read_state(folder.state_path(3)).weights


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_says_how_to_go_on_and_nothing_else(
    copy, start, told, prepared_tiny
):
    """As by Ctrl-C, or by a scheduler: every process of the group gets the signal."""
    process = start("consilium", "run", "demo", "--rounds", "40", "--prepared", prepared_tiny)
    wait_for(process, "round 1/40")
    os.killpg(process.pid, told)
    *rounds, last = process.stdout.read().splitlines()
    assert last.startswith("Stopped. Complete rounds are kept; go on with: consilium resume")
    assert all(line.startswith("round ") for line in rounds)
    assert process.wait(timeout=30) == 130


def test_a_killed_run_resumes_to_the_same_weights(copy, call, start, prefect_server, prepared_tiny):
    # The same in this process, which has imported everything.
    whole = RunFolder(
        Path(fl_round("demo", rounds=3, register_model=False, prepared=prepared_tiny))
    )

    process = start("consilium", "run", "demo", "--rounds", "3", "--prepared", prepared_tiny)
    wait_for(process, "round 1/3")
    kill_group(process)
    killed = latest_run(copy / "runs", "demo")
    assert killed.root != whole.root
    assert 1 <= killed.done_rounds() < 3
    assert not killed.summary_path.exists()

    said = call("consilium", "resume", "demo", PREFECT_API_URL=prefect_server, **NOT_WRITTEN_DOWN)
    assert f"run demo/{killed.run_id}" in said
    assert killed.done_rounds() == 3
    np.testing.assert_array_equal(weights(whole), weights(killed))
    assert killed.summary_path.is_file()
