"""A run that is stopped once a round's sum is done goes on with its evaluation, to the same end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import federated.stages.checkpoint
import federated.stages.evaluate
import flows.graph
import tasks.evaluate
import tasks.local_train
from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.run.folder import RunFolder
from federated.run.runs import latest_run
from tests.flows.conftest import weights

pytestmark = pytest.mark.usefixtures("plainly", "in_process")


class PowerCutError(BaseException):
    """The end of a process, of which nothing in it hears."""


@contextmanager
def power_cut(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, done: bool, last: int
) -> Iterator[None]:
    """The end of a run at the ``last`` call of a function, before or after that is done."""
    real, calls = getattr(module, name), []

    def cut(*given: Any, **named: Any) -> Any:
        calls.append(given)
        if len(calls) < last:
            return real(*given, **named)
        if done:
            real(*given, **named)
        raise PowerCutError

    with monkeypatch.context() as within:
        within.setattr(module, name, cut)
        with pytest.raises(PowerCutError):
            yield


# Where a run ends: the place of a function, and whether that is done before.
MOMENTS: dict[str, tuple[Any, str, bool]] = {
    "as what became of the sum is to be written": (flows.graph, "write_summed", False),
    "once that is written": (flows.graph, "write_summed", True),
    "once the sites are asked": (tasks.evaluate, "ask_evaluation", True),
    "in the evaluation of a site": (tasks.evaluate, "evaluate_site", False),
    "once a site has evaluated": (tasks.evaluate, "evaluate_site", True),
    "once the metrics are known": (tasks.evaluate, "evaluate_shared", True),
    "before the record": (flows.graph, "checkpoint", False),
    "once the record is written": (federated.stages.checkpoint, "write_json", True),
    "once the round is done": (flows.graph, "checkpoint", True),
}
# What sites keep between rounds, whose evaluations are summed, and where updates are hidden.
RUNS = {
    "fedavg": [],
    "scaffold with a residual": ["strategy.name=scaffold", "compression.bits=8"],
    "own tensors": ["strategy.name=fedbn"],
    "sums": ["evaluation.share=sums"],
    "masked sums": [
        *("protection.name=secagg_plus", "protection.min_sites=2", "compression.bits=16"),
        *("evaluation.share=sums", "runner.name=processes"),
    ],
    "encrypted": ["protection.name=packed_bfv", "compression.bits=8", "runner.name=processes"],
    "private": ["privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.noise=seeded"],
}
# Different each time, or of an attempt.
NOT_THE_SAME = ("seconds", "peak_rss_mb", "bytes", "epsilon_rdp")


@pytest.fixture
def stopped(run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has a run end at a moment of its second round; and which sites train from then on."""

    def stop(moment: str, settings: list[str], rounds: int = 3) -> None:
        module, name, done = MOMENTS[moment]
        # A site evaluates in both rounds.
        second = 5 if name == "evaluate_site" else 2
        with power_cut(monkeypatch, module, name, done, second):
            run(rounds=rounds, overrides=settings)

    return stop


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The sites that train, and in which rounds."""
    found: list[tuple[str, int]] = []
    real = tasks.local_train.train_site

    def train(call: Any, number: int) -> None:
        found.append((call.site, number))
        real(call, number)

    monkeypatch.setattr(tasks.local_train, "train_site", train)
    return found


def records(folder: RunFolder) -> list[dict[str, Any]]:
    """The records of a run, without what differs from one run to the next."""
    return [{k: v for k, v in r.items() if k not in NOT_THE_SAME} for r in folder.records()]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_is_stopped_ends_as_one_that_nobody_stopped(
    run, known, stopped, trained, moment
):
    whole = known(3)
    stopped(moment, [])
    trained.clear()
    resumed = run(resume="latest")
    first = 2 if moment == "as what became of the sum is to be written" else 3
    assert {number for _, number in trained} == set(range(first, 4))
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert records(resumed) == records(whole)
    assert [record["bytes"] for record in resumed.records()] == [
        record["bytes"] for record in whole.records()
    ]
    assert not list(resumed.root.rglob("summed.json"))


@pytest.mark.parametrize("name", RUNS)
def test_whatever_sites_keep_and_hide_nothing_is_trained_once_more(
    run, known, stopped, trained, name
):
    whole = known(3, *RUNS[name])
    stopped(
        "once a site has evaluated" if "sums" not in name else "once that is written", RUNS[name]
    )
    trained.clear()
    resumed = run(resume="latest")
    assert {number for _, number in trained} == {3}
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert records(resumed) == records(whole)


def test_when_nobody_worked_on_a_run_is_no_rounds_time(run, stopped, project):
    stopped("once that is written", [], rounds=2)
    path = latest_run(project / "runs", "tiny").summed_path(2)
    value = read_json(path)
    for moments in [value, *value["aggregated"], *value["stages"]]:
        moments |= {
            k: v - 86_400 for k, v in moments.items() if k in ("at", "began", "started", "ended")
        }
    write_json(path, value)
    seconds = run(resume="latest").records()[1]["seconds"]
    assert value["at"] - value["began"] < seconds["total"] < 60
    assert 0 < seconds["local_train"] < seconds["total"]
    assert 0 <= seconds["overhead"] < seconds["total"] - seconds["local_train"]


def test_a_site_tells_of_no_time_before_a_run_was_gone_on_with(run, stopped, monkeypatch):
    """As where its clock is wrong; what it tells is cut to the time in which it was waited for."""
    stopped("once that is written", [], rounds=2)
    real = federated.stages.evaluate.stage_result

    def early(*given: Any, **named: Any) -> Any:
        return replace(result := real(*given, **named), started=result.started - 200)

    monkeypatch.setattr(federated.stages.evaluate, "stage_result", early)
    record = run(resume="latest").records()[1]
    assert record["unreported"] == {}
    assert 0 < record["seconds"]["evaluate"] <= record["seconds"]["total"]


def test_of_a_private_run_no_time_is_written(stopped, project):
    stopped("once that is written", RUNS["private"])
    value = read_json(latest_run(project / "runs", "tiny").summed_path(2))
    assert (value["began"], value["at"], value["aggregated"]) == (0, 0, [])
    assert {stage["started"] for stage in value["stages"]} == {None}


def test_a_damaged_file_is_named_and_without_it_the_round_is_trained_anew(
    run, known, stopped, trained, project
):
    stopped("once that is written", [])
    path = latest_run(project / "runs", "tiny").summed_path(2)
    for content in ("{", "[]", "{}", '{"round_number": 3, "sites": [], "dropped": {}}'):
        path.write_text(content)
        with pytest.raises(ConsiliumError, match=r"summed\.json, cannot be read .*trained anew"):
            run(resume="latest")
    path.unlink()
    trained.clear()
    resumed = run(resume="latest")
    assert {number for _, number in trained} == {2, 3}
    np.testing.assert_array_equal(weights(resumed), weights(known(3)))
    assert Path(resumed.summary_path).is_file()
