"""Runs of the tiny experiment."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from copy import deepcopy
from dataclasses import fields
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch

import flows.site_stages
import tasks.aggregate
import tasks.encrypt
import tasks.evaluate
import tasks.own_models
import tasks.pool
import tasks.secagg
import tasks.take_part
import tasks.validate
from federated.errors import ConsiliumError
from federated.files import make_folders, read_json
from federated.privacy.accounting import Release
from federated.rounds.context import RunContext
from federated.run.folder import RunFolder
from federated.run.result import StageResult
from federated.run.runs import WORKED_ON
from federated.run.update_files import read_state
from federated.site.home import SiteHome, SiteRun
from federated.stages.aggregate import vouch_site
from federated.stages.evaluate import evaluate_site
from federated.stages.protect import protect_site
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.site import SiteCall
from federated.stages.site_model import hand_over
from federated.stages.take_part import take_part
from flows.round import fl_round
from tasks.suites import run_suites
from tests.conftest import tiny_volumes
from tests.flows.consortium import Party, make_consortium
from tests.without_prefect import without_prefect

STAGES = [
    (tasks.take_part, "take-part", take_part),
    (tasks.encrypt, "protect", protect_site),
    (tasks.aggregate, "vouch", vouch_site),
    (tasks.evaluate, "evaluate", evaluate_site),
    (tasks.own_models, "hand-over", hand_over),
    (tasks.secagg.secagg, "advertise", advertise_site),
    (tasks.secagg.secagg, "share", share_site),
    (tasks.secagg.secagg, "agree", agree_site),
    (tasks.secagg.secagg, "answer", answer_site),
]


def full_run(**arguments: object) -> RunFolder:
    return RunFolder(Path(fl_round("tiny", **arguments)))


@pytest.fixture
def run(project, prepared_tiny):
    """Runs on data prepared once, whose models are not registered: seconds less each."""
    return partial(full_run, prepared=prepared_tiny, register_model=False)


@pytest.fixture
def run_volumes(run, write_npz):
    """As ``run``, on volumes: for few runs, because a step on them takes long."""
    write_npz(tiny_volumes(), "adrenalmnist3d")

    def run_on_volumes(overrides: Sequence[str] = (), **arguments: object) -> RunFolder:
        of_volumes = ["data.dataset=adrenalmnist3d", *overrides]
        return run(overrides=of_volumes, prepared=None, **arguments)

    return run_on_volumes


@pytest.fixture(scope="session")
def _judged(tmp_path_factory):
    return tmp_path_factory.mktemp("judged"), {}, Lock()


@pytest.fixture(autouse=True)
def judged_once(_judged, monkeypatch):
    """Great Expectations judges equal tables by equal rules once, for all tests of flows.

    It takes seconds to judge three sites and to draw its pages, and most runs are of the same
    cases. What it found of a table, and its pages, are those of the first that asked for them;
    tests/tasks asks it each time, and in processes of its own.
    """
    place, found, lock = _judged

    def broken_rules(experiment, info, tables, docs):
        from tasks.expectations import expectations

        # All that the rules say, and what they judge.
        rules = [expectations(experiment, info, of_a_site=own) for own in (True, False)]
        judged = [
            (site, list(table.index), table.to_dict("list"), table.dtypes.to_dict())
            for site, table in tables.items()
        ]
        key = repr((rules, judged))
        with lock:
            if key not in found:
                kept = place / str(len(found))
                broken = run_suites(experiment, info, tables, docs)
                shutil.copytree(docs, kept)
                found[key] = broken, kept
                return deepcopy(broken)
            broken, kept = found[key]
        shutil.rmtree(docs, ignore_errors=True)
        make_folders(docs)
        mode = docs.stat().st_mode
        shutil.copytree(kept, docs, dirs_exist_ok=True)
        docs.chmod(mode)
        return deepcopy(broken)

    monkeypatch.setattr(tasks.validate, "broken_rules", broken_rules)


@pytest.fixture(scope="session")
def _known_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("known"), {}


@pytest.fixture
def known(run, _known_runs):
    """A run of so many rounds with these settings, of this test or of one before: to look at.

    For runs that others are compared with; equal settings give equal runs. ``failed`` says what
    fails in it, where the test lets a stage fail.
    """
    place, found = _known_runs

    def look(rounds: int, *overrides: str, failed: str = "") -> RunFolder:
        key = (rounds, *overrides, failed)
        if key not in found:
            runs = str(place / str(len(found)))
            found[key] = run(rounds=rounds, overrides=list(overrides), runs=runs)
        return found[key]

    return look


@pytest.fixture
def plainly(request):
    """Flows are called without Prefect; not in a test that asks for its server as well."""
    with nullcontext() if "prefect_server" in request.fixturenames else without_prefect():
        yield


@pytest.fixture
def in_process(monkeypatch):
    """The sites' stages in this process."""
    pool = partial(ThreadPoolExecutor, 1, initializer=torch.set_num_threads, initargs=(1,))
    monkeypatch.setattr(tasks.pool, "_local_pool", lambda experiment: pool())


@pytest.fixture
def failing(monkeypatch):
    """Lets stages of sites fail, told as "stage site round", where they run in this process."""

    def fail(*told: str) -> None:
        def failing_stage(name: str, stage: Callable[..., StageResult]) -> Callable[..., object]:
            def run_stage(call: SiteCall, *arguments: object) -> object:
                # What comes before the first round is told of round 0.
                number = arguments[0] if arguments else 0
                if f"{name} {call.site} {number}" in told:
                    raise ConsiliumError(f"{call.site} has no power.")
                return stage(call, *arguments)

            return run_stage

        for module, name, stage in STAGES:
            wrapped = failing_stage(name, stage)
            monkeypatch.setattr(module, stage.__name__, wrapped)

    return fail


@pytest.fixture
def consortium(project):
    """A consortium of three, whose sites begin their work when they are named."""
    parties = make_consortium(project)
    with ExitStack() as stack:

        def begin(*names: str) -> dict[str, Party]:
            for name in names or parties:
                stack.enter_context(parties[name].at_work())
            return parties

        yield begin


@pytest.fixture
def titles(monkeypatch):
    """The titles of task runs that are of several sites, or could be."""
    found = []

    class Noted(flows.site_stages.SiteGroup):
        def __init__(self, *given):
            super().__init__(*given)
            found.append(self.title)

    monkeypatch.setattr(flows.site_stages, "SiteGroup", Noted)
    return found


def kept_at(folder: RunFolder, site: str) -> SiteRun:
    """What a simulated site keeps of a run."""
    return SiteHome(folder.home_path(site)).run(folder.run_id)


def contents(folder: RunFolder) -> dict[Path, bytes]:
    """The files of a run, but for the one that says who works on it since which minute."""
    files = (path for path in folder.root.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != WORKED_ON}


def call_of(folder: RunFolder, site: str) -> SiteCall:
    """What a worker was handed in the last attempt at a run."""
    attempt = read_json(folder.coordinator_path / "attempt.json")
    return SiteCall(folder.home_path(site), folder.exchange_path, folder.run_id, attempt)


def run_context(folder: RunFolder) -> RunContext:
    """What everyone knows of a run."""
    told = read_json(folder.privacy_path) if folder.privacy_path.is_file() else {}
    names = [field.name for field in fields(Release)]
    planned = {site: Release(*(own[name] for name in names)) for site, own in told.items()}
    counts, sites = folder.case_counts(), tuple(folder.sites())
    return RunContext(folder.run_id, folder.experiment(), counts, sites, planned)


def messages(folder: RunFolder, kind: str = "*", round_number: int | None = None) -> list[Path]:
    """The files of the messages of a kind that lie in a run's exchange, of a round or of all."""
    place = "*" if round_number is None else f"round-{round_number:03d}"
    return list(folder.exchange_path.glob(f"*/{place}/attempt-*/*/{kind}/*/*.message"))


def weights(folder: RunFolder) -> np.ndarray:
    return read_state(folder.state_path(folder.done_rounds())).weights
