"""What every command and every worker waits for: the import of what it begins with."""

import subprocess
import sys
import tomllib

import pytest

from tasks.fork_server import IMPORTED
from tests.conftest import PROJECT

# What takes together longer to import than torch, and what is needed in some runs alone, or late.
# Each is imported in the function that needs it.
LATE = (
    *("medmnist", "nibabel", "pandas", "PIL", "pooch", "pydicom", "pyarrow", "requests"),
    *("scipy", "SimpleITK", "sklearn", "torchio", "opacus", "monai", "tenseal", "highdicom"),
)


# torch's own optimisers import its compiler, for a second, as soon as one of them is made.
TRAINING = """
import sys, federated.configuration.load, federated.stages.local_train
import federated.stages.protect, federated.stages.evaluate, federated.stages.worker
from torch import nn, ones
from federated.settings.sections import TrainingSettings
from federated.training.optimization import make_optimizer
for name in ("adamw", "sgd"):
    model = nn.Linear(2, 1)
    optimizer = make_optimizer(model, TrainingSettings(optimizer=name), 0.1)
    optimizer.zero_grad()
    model(ones(1, 2)).sum().backward()
    optimizer.step()
print([name for name in {late!r} if name in sys.modules])
"""


def test_nothing_that_few_runs_need_is_imported_before_the_first_stage_or_by_a_step_of_training():
    asked = TRAINING.format(late=(*LATE, "torch._dynamo"))
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"


# What a command begins with, in this order in one process, and what none of it may have imported:
# the list of commands; a home that is made, checked, paused, and whose sites are enrolled; what
# serves a coordinator for months; what takes part in a run, or runs it.
BEGINNINGS = {
    "flows.cli": ("torch", "numpy", "pydantic", "httpx", "prefect", "mlflow", "great_expectations"),
    "flows.site_life, flows.coordinator_life, flows.coordinator_logins": (
        *("torch", "prefect", "mlflow", "great_expectations", "starlette", "uvicorn", "sqlalchemy"),
        *LATE,
    ),
    "federated.exchange.https.server, flows.coordinator_front, flows.coordinator_metrics, "
    "flows.coordinator_server, flows.databases": (
        *("torch", "mlflow", "great_expectations", "prefect.server", *LATE),
    ),
    "flows.site_service, flows.round": ("mlflow", "great_expectations", "prefect.server", *LATE),
}


def test_no_command_imports_what_it_does_not_begin_with():
    lines = ["import sys"]
    for modules, late in BEGINNINGS.items():
        lines += [f"import {modules}", f"print([n for n in {late!r} if n in sys.modules])"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.split("\n")[:-1] == ["[]"] * len(BEGINNINGS)


STARTING = """
import sys
import flows.server
def start():
    print("torch" in sys.modules)
    sys.exit()
flows.server.start_embedded_server = start
sys.argv = ["consilium", "run", "demo"]
from flows.cli import main
main()
"""


def test_the_server_starts_before_what_a_run_imports_for_seconds():
    done = subprocess.run(
        [sys.executable, "-c", STARTING], capture_output=True, text=True, timeout=300, cwd=PROJECT
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False"), done.stderr


MISTAKEN = """
import atexit, sys
atexit.register(lambda: print([name for name in ("torch", "prefect") if name in sys.modules]))
sys.argv = ["consilium", "run", *{words!r}]
from flows.cli import main
main()
"""


@pytest.mark.parametrize(
    "words", [["nothing"], ["demo", "--set", "rounds"], ["demo", "--params", "x"]]
)
def test_a_plain_mistake_is_told_before_anything_is_imported_for_seconds(words):
    code = MISTAKEN.format(words=words)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=PROJECT
    )
    assert (done.returncode, done.stdout) == (1, "[]\n"), done.stderr
    assert done.stderr.startswith("Error: The")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("begun_with", ["flows.cli", "flows.ends_with_parent", IMPORTED[0]])
def test_nothing_is_looked_through_once_more_at_the_end(begun_with):
    asked = (
        "import atexit, gc; at_end = lambda: print(gc.get_freeze_count() > 0); "
        f"atexit.register(at_end); import {begun_with}; print(gc.get_threshold()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.split() == ["50000", "True"]


def test_no_flow_has_the_name_of_a_module_of_python():
    """A worker of Prefect puts the folder of a flow's file before all others it imports from."""
    names = {path.stem for path in (PROJECT / "flows").glob("*.py")}
    # Python has imported its own `site` before anything else.
    assert names & sys.stdlib_module_names == {"site"}


INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from flows.program import main
main()
"""


def test_ctrl_c_before_the_command_line_is_there_is_answered_in_a_word():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


def test_the_program_is_what_answers_so():
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["consilium"] == "flows.program:main"
