"""Runs of three sites whose stages a test calls itself."""

from pathlib import Path

import pytest

from tests.federated.staged_run import (
    Staged,
    agree_on_key,
    begin,
    small_experiment,
    small_images,
)
from tests.federated.stages.lies import (
    BFV,
    PRIVATE,
    THREE,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_images(tmp_path)


@pytest.fixture
def plain(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **THREE), tmp_path / "runs")


@pytest.fixture
def private(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **PRIVATE), tmp_path / "runs")


@pytest.fixture
def encrypted(tmp_path: Path, data: Path) -> Staged:
    run = begin(small_experiment(data, **BFV), tmp_path / "runs")
    agree_on_key(run)
    return run
