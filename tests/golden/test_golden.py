"""The thirteen small runs give what was recorded: no change of structure changes a result."""

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.golden.configurations import GOLDEN

pytestmark = pytest.mark.system

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "recorded.json").read_text())
# By which share a loss may differ on another kind of processor, which rounds sums elsewhere.
ELSEWHERE = 0.02


class Found:
    """What the runs of a process find, as it tells them one after the other."""

    def __init__(self, process: "subprocess.Popen[str]", errors: Path) -> None:
        self.process, self.errors = process, errors
        self.told: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """What is told under a name, once it is; the process may not end before."""
        assert self.process.stdout
        while name not in self.told:
            line = self.process.stdout.readline()
            assert line, f"ended without {name!r}: {self.errors.read_text()}"
            if line.startswith("{"):
                self.told |= json.loads(line)
        return self.told[name]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """What all runs find now, in a process of its own."""
    folder = tmp_path_factory.mktemp("golden")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CONSILIUM_"))}
    command = [sys.executable, "-m", "tests.golden.runs", str(folder / "found.json")]
    project = HERE.parent.parent
    environment = {**kept, "PYTHONPATH": str(project)}
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield Found(process, folder / "errors")
        finally:
            process.terminate()


def test_every_configuration_is_recorded():
    assert set(RECORDED["runs"]) == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_a_run_gives_what_was_recorded(found, name):
    now, then = found[name], RECORDED["runs"][name]
    if found["fingerprint"] == RECORDED["fingerprint"]:
        assert now == then
        return
    warnings.warn(
        f"Recorded with {RECORDED['fingerprint']}, and this is {found['fingerprint']}: the bits "
        "are not compared, losses are.",
        stacklevel=1,
    )
    for split, metrics in then["metrics"].items():
        assert now["metrics"][split]["loss"] == pytest.approx(metrics["loss"], rel=ELSEWHERE)
