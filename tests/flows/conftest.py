"""Runs of the tiny experiment."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from federated.run_folder import RunFolder
from federated.update_files import read_state
from flows.round import fl_round


def full_run(**arguments: object) -> RunFolder:
    return RunFolder(Path(fl_round("tiny", **arguments)))


@pytest.fixture
def run(project, prepared_tiny):
    """Runs on data prepared once, whose models are not registered: seconds less each."""
    return partial(full_run, prepared=prepared_tiny, register_model=False)


def weights(folder: RunFolder) -> np.ndarray:
    return read_state(folder.state_path(folder.done_rounds())).weights
