"""A round is evaluated beside the training of the next one, where that changes nothing."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import flows.graph
import flows.round
import tasks.evaluate
import tasks.local_train
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.run.folder import RunFolder
from federated.run.round_record import RoundRecord
from federated.run.runs import latest_run
from federated.site.home import MEMORY_KINDS
from flows.overlap import why_in_turn
from flows.site_stages import MOST_RUNS
from tests.flows.conftest import kept_at, weights
from tests.flows.test_stopped_evaluations import MOMENTS, power_cut, records

pytestmark = pytest.mark.usefixtures("plainly")

PROCESSES = ["runner.name=processes", "runner.workers=2"]
# Further moments at which a run ends, and the how manieth call that is of round 2 or 3.
BESIDE: dict[str, tuple[Any, str, bool, int]] = {
    "as the next round is to be planned": (flows.graph, "plan_round", False, 3),
    "once the next round is planned": (flows.graph, "plan_round", True, 3),
    "as a site is to train in it": (tasks.local_train, "train_site", False, 8),
    "once a site has trained in it": (tasks.local_train, "train_site", True, 8),
    "once all have trained in it": (tasks.local_train, "train_site", True, 9),
    "as its updates are to be summed": (flows.graph, "aggregate", False, 3),
}
COUNTED = {"evaluate_site": 5}


def experiment(*settings: str) -> Experiment:
    return load_experiment("tiny", ["runner.name=processes", *settings])


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    "settings",
    [
        ["runner.name=serial"],
        ["runner.stacked_sites=4"],
        ["privacy.name=dp_sgd", "privacy.noise_multiplier=1"],
        ["privacy.name=site_level", "privacy.epsilon_per_round=6", "privacy.clip=1"],
        ["protection.name=packed_bfv", "compression.bits=8"],
        ["protection.name=secagg_plus", "compression.bits=16"],
        ["strategy.name=scaffold"],
        ["strategy.name=fedbn"],
        ["strategy.name=ditto"],
        ["strategy.name=resfim"],
        ["strategy.name=local"],
        ["strategy.name=central"],
        ["strategy.name=finetune"],
        ["compression.bits=8"],
        ["compression.name=top_k", "compression.density=0.1"],
        ["compression.name=shared_mask", "compression.density=0.1"],
        ["evaluation.share=sums"],
        ["selection.patience=3"],
    ],
    ids=" ".join,
)
def test_a_run_in_which_something_follows_from_the_order_is_in_turn_and_says_why(settings):
    said = why_in_turn(experiment(*settings), 3)
    assert said is not None
    section = settings[0].split(".")[0]
    assert said.startswith(
        "compression, " if section == "compression" else settings[0].rstrip("=3")
    )


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", ["fedavg", "fedprox", "fedavgm", "fednova", "fedadam", "fedyogi"])
def test_where_sites_keep_nothing_a_round_is_evaluated_beside_the_next(name):
    chosen = experiment(f"strategy.name={name}", "sites.participation=0.6")
    assert why_in_turn(chosen, 3) is None
    assert why_in_turn(chosen, MOST_RUNS) is None
    assert "in groups" in (why_in_turn(chosen, MOST_RUNS + 1) or "")


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a run does, in order."""
    found: list[str] = []

    def noting(module: Any, name: str, told: Callable[..., str]) -> None:
        real = getattr(module, name)

        def note(*given: Any, **named: Any) -> Any:
            found.append(told(*given))
            return real(*given, **named)

        monkeypatch.setattr(module, name, note)

    noting(tasks.local_train, "train_site", lambda call, number: f"train {call.site} {number}")
    noting(tasks.evaluate, "evaluate_site", lambda call, number: f"evaluate {call.site} {number}")
    noting(flows.graph, "checkpoint", lambda coordinator, number, record: f"record {number}")
    return found


def of_rounds(order: list[str]) -> list[str]:
    """The same without sites, each once."""
    short = [f"{line.split()[0]} {line.split()[-1]}" for line in order]
    return [one for one, before in zip(short, ["", *short], strict=False) if one != before]


@pytest.mark.parametrize("name", ["fedprox", "fedavgm", "fednova", "fedadam"])
def test_a_run_in_either_order_has_the_same_weights_and_records(
    run, in_process, order, caplog, name
):
    chosen = [f"strategy.name={name}", "sites.participation=0.6"]
    serial = run(rounds=3, overrides=chosen)
    assert of_rounds(order) == [
        *("train 1", "evaluate 1", "record 1", "train 2", "evaluate 2", "record 2"),
        *("train 3", "evaluate 3", "record 3"),
    ]
    assert "before the next one is trained: runner.name=serial" in caplog.text
    order.clear()
    beside = run(rounds=3, overrides=[*PROCESSES, *chosen])
    assert of_rounds(order) == [
        *("train 1", "evaluate 1", "train 2", "record 1", "evaluate 2", "train 3", "record 2"),
        *("evaluate 3", "record 3"),
    ]
    assert "each round is evaluated beside the training of the next one" in caplog.text
    np.testing.assert_array_equal(weights(beside), weights(serial))
    assert records(beside) == records(serial)
    assert [r["bytes"] for r in beside.records()] == [r["bytes"] for r in serial.records()]
    assert read_json(beside.summary_path)["metrics"] == read_json(serial.summary_path)["metrics"]
    for site in beside.sites():
        store = kept_at(beside, site)
        # What it was told of the rounds that were done.
        assert read_json(store.told_path) == read_json(kept_at(serial, site).told_path)
        assert not any(store.memory_paths(kind) for kind in MEMORY_KINDS)


def test_payloads_are_added_in_the_order_of_the_sites_whoever_trains_first(run, in_process, order):
    """Sums of floating-point numbers are those of the other order of rounds to the last bit."""
    beside = run(rounds=2, overrides=[*PROCESSES, "seed=2"], prepared=None)
    trained = [line.split()[1] for line in order if line.startswith("train") and line[-1] == "2"]
    assert trained != beside.sites()
    assert beside.records()[1]["sites"] == beside.sites()


def test_a_round_without_an_evaluation_is_beside_the_next_too(run, in_process, order, known):
    settings = ["selection.every=2"]
    beside = run(rounds=3, overrides=[*PROCESSES, *settings])
    assert of_rounds(order) == [
        *("train 1", "train 2", "record 1", "evaluate 2", "train 3", "record 2"),
        *("evaluate 3", "record 3"),
    ]
    assert records(beside) == records(known(3, *settings))


def stop(run: Callable[..., RunFolder], monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Have a run of four rounds end at a moment of its second or third."""
    known_moment = MOMENTS.get(moment)
    module, name, done, last = (
        (*known_moment, COUNTED.get(known_moment[1], 2)) if known_moment else BESIDE[moment]
    )
    with power_cut(monkeypatch, module, name, done, last):
        run(rounds=4, overrides=PROCESSES)


@pytest.mark.parametrize("moment", [*MOMENTS, *BESIDE])
def test_a_run_that_is_stopped_at_any_moment_ends_as_one_that_nobody_stopped(
    run, known, in_process, monkeypatch, project, moment
):
    whole = known(4)
    stop(run, monkeypatch, moment)
    stopped = latest_run(project / "runs", "tiny")
    before = records(stopped)
    assert before == records(whole)[: len(before)]
    resumed = run(resume="latest")
    np.testing.assert_array_equal(weights(resumed), weights(whole))
    assert records(resumed) == records(whole)
    assert not list(resumed.root.rglob("summed.json"))


def test_a_run_does_not_end_before_a_round_of_which_sites_know_that_it_is_done(
    run, known, in_process, monkeypatch
):
    stop(run, monkeypatch, "once a site has trained in it")
    with pytest.raises(ConsiliumError, match=r"cannot end with 1 round: .* with --rounds 2, or"):
        run(resume="latest", rounds=1)
    resumed = run(resume="latest", rounds=2)
    assert records(resumed) == records(known(2))
    assert read_json(resumed.summary_path)["metrics"] == read_json(known(2).summary_path)["metrics"]


def test_nothing_is_beside_an_evaluation_that_is_gone_on_with(run, in_process, order, monkeypatch):
    """What fails in the next round again and again, ends no run without this one's record."""
    with power_cut(monkeypatch, tasks.evaluate, "evaluate_shared", done=False, last=1):
        run(rounds=3, overrides=PROCESSES)
    order.clear()
    run(resume="latest")
    assert of_rounds(order)[:5] == ["evaluate 1", "record 1", "train 2", "evaluate 2", "train 3"]


def test_a_site_that_fails_in_the_evaluation_trains_all_the_same(run, in_process, failing, known):
    failing("evaluate site-01 1")
    settings = ["sites.on_dropout=continue"]
    beside = run(rounds=2, overrides=[*PROCESSES, *settings])
    first, second = beside.records()
    assert list(first["not_evaluated"]) == ["site-01"]
    assert second["sites"] == beside.sites()
    in_turn = known(2, *settings, failed="evaluate site-01 1")
    np.testing.assert_array_equal(weights(beside), weights(in_turn))
    assert first["metrics"] == in_turn.records()[0]["metrics"]


def test_where_nobody_evaluates_the_run_ends_and_goes_on_from_there(
    run, in_process, failing, known, project
):
    failing(*(f"evaluate site-0{number} 2" for number in range(3)))
    with pytest.raises(ConsiliumError, match="has no power"):
        run(rounds=3, overrides=[*PROCESSES, "sites.on_dropout=continue"])
    assert latest_run(project / "runs", "tiny").done_rounds() == 1
    failing()
    resumed = run(resume="latest")
    np.testing.assert_array_equal(weights(resumed), weights(known(3)))


def test_a_pause_is_heard_before_the_next_round_is_begun(run, in_process, order, monkeypatch):
    """One that is asked for while a round is trained already lets that round end."""
    waited: list[int] = []

    def waits(folder: RunFolder) -> bool:
        if folder.paused_path.is_file():
            waited.append(folder.done_rounds())
            folder.paused_path.unlink()
        return False

    real = flows.graph.checkpoint

    def paused(coordinator: Any, number: int, *given: Any, **named: Any) -> Any:
        if number == 1:
            (coordinator.unquote()).folder.paused_path.write_text("")
        return real(coordinator, number, *given, **named)

    monkeypatch.setattr(flows.round, "wait_while_paused", waits)
    monkeypatch.setattr(flows.graph, "checkpoint", paused)
    run(rounds=4, overrides=PROCESSES)
    assert waited == [2]
    assert of_rounds(order)[of_rounds(order).index("record 2") + 1] == "train 3"


def test_the_times_of_rounds_leave_no_gap_and_are_never_negative(run, monkeypatch):
    """With worker processes: stages of two rounds are done at once."""
    told: list[RoundRecord] = []
    real = flows.graph._report

    def report(run: Any, record: RoundRecord, after: Any) -> Any:
        told.append(record)
        return real(run, record, after)

    monkeypatch.setattr(flows.graph, "_report", report)
    folder = run(rounds=4, overrides=PROCESSES)
    assert [one.ended for one in told[:-1]] == [other.began for other in told[1:]]
    assert told[-1].ended is None
    for one, other in pairwise(told):
        at_sites = other.earlier.at_sites
        assert at_sites == one.evaluating.at_sites
        assert len(at_sites) == len(one.sites)
        assert all(other.began <= each.started < each.ended for each in at_sites)
    for seconds in (record["seconds"] for record in folder.records()):
        assert 0 <= seconds["overhead"] < seconds["total"]
        assert 0 <= seconds["idle"] < seconds["total"]
