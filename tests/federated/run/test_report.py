"""What a lying site tells of its stages and of its privacy is refused, whatever it is."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from federated.errors import ConsiliumError
from federated.privacy.hash_chain import Head
from federated.privacy.spending import Spending
from federated.run.report import MOST_REPORT, MOST_SKEW, Known, pack_report, read_report
from federated.run.result import TOLD, StageResult
from federated.run.told_privacy import read_told

SITE, NOW = "site-00", 1_000_000.0
KNOWN = Known(SITE, TOLD["protect"], NOW - 60, NOW, False, True, 24, 10**6, None)
PRIVATE = replace(KNOWN, private=True, losses=False, most_epsilon=3.0)


def result(stage: Any, **told: Any) -> StageResult:
    cases = {"local_train": 24, "compress": 24, "protect": 24, "style": 24}.get(stage, 0)
    honest = StageResult(SITE, stage, NOW - 50, NOW - 40, 900.0, cases, None, 0, 0, None)
    return replace(honest, **told)


HONEST = [result("local_train", loss=0.7), result("compress"), result("protect", sent=5000)]
HIDDEN = {"started": None, "ended": None, "peak_rss_mb": None}
DISCREET = [
    result("local_train", epsilon=2.5, **HIDDEN),
    result("compress", **HIDDEN),
    result("protect", sent=5000, **HIDDEN),
]


def test_an_honest_report_arrives_as_it_was_told() -> None:
    assert read_report(pack_report(HONEST), KNOWN) == HONEST
    assert read_report(pack_report(DISCREET), PRIVATE) == DISCREET
    assert len(pack_report(HONEST)) < MOST_REPORT / 4


# What the site changes in what it tells of its training.
LIES: dict[str, dict[str, Any]] = {
    "a loss of NaN": {"loss": float("nan")},
    "an infinite loss": {"loss": float("inf")},
    "a negative loss": {"loss": -0.1},
    "a loss that is text": {"loss": "0.7\x1b[2J"},
    "an end before the beginning": {"ended": NOW - 51},
    "a beginning long before the round": {"started": 0.0},
    "an end in the future": {"ended": NOW + MOST_SKEW + 1},
    "times of NaN": {"started": float("nan")},
    "no times": {"started": None},
    "a beginning that is true": {"started": True},
    "negative memory": {"peak_rss_mb": -1.0},
    "memory without end": {"peak_rss_mb": 1e300},
    "other cases": {"cases": 23},
    "more cases": {"cases": 10**9},
    "a fraction of a case": {"cases": 24.0},
    "negative bytes": {"sent": -1},
    "ten gigabytes": {"sent": 10**10},
    "ten gigabytes downloaded": {"received": 10**10},
    "bytes that no float holds": {"sent": 10**400},
    "a fraction of a byte": {"sent": 0.5},
    "an epsilon without privacy": {"epsilon": 0.1},
    "another stage": {"stage": "evaluate"},
    "a stage that is a command to a terminal": {"stage": "\x1b]0;owned\x07"},
    "a field more": {"note": "x"},
    "another site's name": {"site": "site-01"},
}
PRIVATE_LIES: dict[str, dict[str, Any]] = {
    "an epsilon of a million": {"epsilon": 1e6},
    "a negative epsilon": {"epsilon": -1.0},
    "an epsilon of NaN": {"epsilon": float("nan")},
    "a time": {"started": NOW - 50},
    "its memory": {"peak_rss_mb": 900.0},
    "its loss": {"loss": 0.7},
}


def packed(results: list[StageResult], change: dict[str, Any]) -> bytes:
    value = json.loads(pack_report(results))
    value[0] |= change
    return json.dumps(value).encode()


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_report_is_refused(lie: str) -> None:
    with pytest.raises(ConsiliumError, match=r"site-00 tells of local_train.* is refused") as told:
        read_report(packed(HONEST, LIES[lie]), KNOWN)
    assert str(told.value).isprintable()
    assert len(str(told.value)) < 500


@pytest.mark.parametrize("lie", PRIVATE_LIES)
def test_a_lying_report_of_a_private_run_is_refused(lie: str) -> None:
    with pytest.raises(ConsiliumError, match="is refused"):
        read_report(packed(DISCREET, PRIVATE_LIES[lie]), PRIVATE)


NO_REPORTS: dict[str, bytes] = {
    "nothing": b"",
    "noise": b"noise" * 100,
    "an object": b"{}",
    "a number": b"7",
    "too few stages": pack_report(HONEST[:2]),
    "a stage twice": pack_report([HONEST[0], HONEST[0], HONEST[2]]),
    "stages of nothing": b"[null, null, null]",
    "nested a thousand deep": b"[" * 4000,
    "a number of thousands of digits": b"[" + b"9" * 4000 + b"]",
    "a report of another step": pack_report([result("evaluate")]),
}


@pytest.mark.parametrize("what", NO_REPORTS)
def test_what_is_no_report_is_refused(what: str) -> None:
    with pytest.raises(ConsiliumError, match="is refused"):
        read_report(NO_REPORTS[what], KNOWN)


def test_a_stage_counts_in_the_time_in_which_the_coordinator_waited_alone() -> None:
    """A site's clock may be wrong by minutes, and the record's seconds are not."""
    report = [replace(HONEST[0], started=NOW - 200, ended=NOW + 100), *HONEST[1:]]
    found = read_report(pack_report(report), KNOWN)
    assert (found[0].started, found[0].ended) == (KNOWN.since, KNOWN.until)


RUN = "20261126-101010-ab12"
SPENDING = Spending(
    "dp_sgd", "record", 1.0, 0.25, 4, 1.0, 1, RUN, "small", SITE, "a digest of records"
)
TOLD_PRIVACY: dict[str, Any] = {
    **{"holder": "bloodmnist", "cases_of_one_patient": 1, "steps": 4},
    **{"epsilon": 2.5, "epsilon_per_round": 1.0, "epsilon_ledger": 9.0, "epsilon_patient": 2.5},
    **{"budget": None, "noise_multiplier": 1.0, "sampling_rate": 0.25},
    "releases": [{k: v for k, v in asdict(SPENDING).items() if k != "records"}],
    "head": asdict(Head(1, "a" * 64)),
}


def told(change: Callable[[dict[str, Any]], Any], private: bool = True) -> dict[str, Any]:
    value = json.loads(json.dumps(TOLD_PRIVACY))
    changed = change(value)
    body = json.dumps(value if changed is None else changed).encode()
    return read_told(body, SITE, RUN, private, 3.0 if private else None)


def test_an_honest_report_of_privacy_arrives_as_it_was_told() -> None:
    assert told(lambda value: value) == TOLD_PRIVACY
    assert told(lambda value: value | {"epsilon": None})["epsilon"] is None


PRIVACY_LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an epsilon of a million": lambda v: v | {"epsilon": 1e6},
    "a round of a million": lambda v: v | {"epsilon_per_round": 1e6},
    "an epsilon below 0": lambda v: v | {"epsilon": -1},
    "an epsilon of NaN": lambda v: v | {"epsilon": float("nan")},
    "a ledger of infinity": lambda v: v | {"epsilon_ledger": float("inf")},
    "an epsilon that is text": lambda v: v | {"epsilon": "2.5"},
    "steps below 0": lambda v: v | {"steps": -1},
    "a holder that commands a terminal": lambda v: v | {"holder": "\x1b[2J"},
    "a holder of ten thousand letters": lambda v: v | {"holder": "x" * 10_000},
    "a digest of records": lambda v: v | {"releases": [asdict(SPENDING)]},
    "a field less": lambda v: {k: x for k, x in v.items() if k != "head"},
    "a head that is none": lambda v: v | {"head": {"count": 1, "hash": "\x1b"}},
    "a head of another kind": lambda v: v | {"head": {"count": "1", "hash": "a" * 64}},
    "a head that is a list": lambda v: v | {"head": []},
    "releases that are none": lambda v: v | {"releases": 7},
    "a release of another site": lambda v: v["releases"][0].update(site="site-01"),
    "a release of another run": lambda v: v["releases"][0].update(run="run-0"),
    "a release of no unit": lambda v: v["releases"][0].update(unit="patient"),
    "a mechanism that commands": lambda v: v["releases"][0].update(mechanism="\x1b]0;x\x07"),
    "a clip of NaN": lambda v: v["releases"][0].update(clip=float("nan")),
    "a list": lambda v: [v],
}


@pytest.mark.parametrize("lie", PRIVACY_LIES)
def test_a_lying_report_of_privacy_is_refused(lie: str) -> None:
    with pytest.raises(ConsiliumError, match="site-00 tells of its privacy is refused") as error:
        told(PRIVACY_LIES[lie])
    assert str(error.value).isprintable()


def test_without_privacy_no_epsilon_is_told() -> None:
    def plain(value: dict[str, Any]) -> dict[str, Any]:
        names = ("budget", "noise_multiplier", "sampling_rate")
        return {k: v for k, v in value.items() if k not in names}

    nothing = dict.fromkeys(name for name in TOLD_PRIVACY if name.startswith("epsilon"))
    assert told(lambda v: plain(v) | nothing, private=False)["epsilon"] is None
    with pytest.raises(ConsiliumError, match="its epsilon is"):
        told(lambda v: plain(v) | nothing | {"epsilon": 2.5}, private=False)
