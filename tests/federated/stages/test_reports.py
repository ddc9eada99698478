"""What a site tells of its stages passes in a signed message, and a lie in it ends nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic, sign
from federated.exchange.plan import LONGEST_WARNING, Joining
from federated.exchange.policy import PERMISSIVE
from federated.learning.evaluation import Evaluation
from federated.privacy.accounting import Release
from federated.run.result import StageResult, Unreported
from federated.run.round_record import RoundRecord
from federated.run.timing import Interval
from federated.stages.aggregate import add_payloads
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.stages.privacy_report import receive_reports, summarise_privacy, tell_privacy
from federated.stages.protect import protect_site
from federated.stages.report import most_epsilon, reports
from federated.stages.worker import run_alone, run_and_report
from tests.federated.staged_run import Staged, begin, small_experiment, start_again, train_round
from tests.federated.stages.lies import OTHER, PRIVATE, SITE

KIND = f"{kinds.REPORT}protect"


def place(topic: Topic, kind: str = KIND, site: str = SITE) -> Place:
    return Place(topic.run, topic.round, topic.attempt, COORDINATOR, kind, site)


def retell(run: Staged, change: Any, kind: str = KIND, number: int = 1) -> None:
    """Take the site's report away and let it tell another, with its own key."""
    topic, exchange = run.coordinator.topic(number), run.coordinator.mailbox.exchange
    (path,) = exchange.find(place(topic, kind))
    value = json.loads(run.coordinator.mailbox.receive(topic, kind, SITE, 10**6).body)
    path.unlink()
    body = change(value)
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    exchange.post(sign(run.home(SITE).identity(), topic, kind, COORDINATOR, body))


def lie(**told: Any) -> Any:
    return lambda value: [value[0] | told, *value[1:]]


LIES: dict[str, Any] = {
    "a loss of NaN": lie(loss=float("nan")),
    "negative seconds": lie(started=2e9, ended=1e9),
    "an epsilon of a million": lie(epsilon=1e6),
    "ten gigabytes that it sent": lie(sent=10**10),
    "a report of ten megabytes": lambda value: b"[" + b" " * 10**7 + b"]",
    "a command to a terminal": lambda value: [value[0] | {"stage": "\x1b]0;x\x07"}, *value[1:]],
    "nothing": lambda value: b"",
    "more cases than it has": lie(cases=10**6),
}


def audit(run: Staged) -> list[dict[str, Any]]:
    lines = run.coordinator.mailbox.audit.lines()
    return [line for line in lines if line["event"] == "unreported"]


def recorded(run: Staged, told: list[Any], number: int = 1) -> RoundRecord:
    timed, now = run.experiment.privacy.unit is None, 0.0
    nothing = Evaluation({}, {}, {}, {})
    return RoundRecord(number, run.sites, {}, told, [], Interval(now, now), nothing, now, 1, timed)


@pytest.mark.parametrize("what", LIES)
def test_a_lying_report_counts_as_missing_and_the_round_stands(plain: Staged, what: str) -> None:
    topic = train_round(plain, 1)
    retell(plain, LIES[what])
    assert add_payloads(plain.coordinator, topic, plain.sites).responded == plain.sites
    told = reports(plain.coordinator, 1, "protect", plain.sites)
    record = recorded(plain, told)
    assert record.unreported == {SITE: ["local_train", "compress", "protect"]}
    assert {result.site for result in record.told} == set(plain.sites[1:])
    (line,) = audit(plain)
    assert line["sender"] == SITE
    assert line["said"].isprintable()


def test_what_an_honest_site_tells_is_what_the_record_has(plain: Staged) -> None:
    train_round(plain, 1)
    told = reports(plain.coordinator, 1, "protect", plain.sites)
    assert [(r.site, r.stage) for r in told] == [
        (site, stage) for site in plain.sites for stage in ("local_train", "compress", "protect")
    ]
    trained, _, protected = [r for r in told if isinstance(r, StageResult)][:3]
    assert trained.loss is not None
    assert 0 < trained.loss < 10
    assert trained.started is not None
    assert trained.ended is not None
    assert plain.coordinator.begun[1] <= trained.started < trained.ended
    topic = plain.coordinator.topic(1)
    (payload,) = plain.coordinator.mailbox.exchange.find(place(topic, kinds.PAYLOAD))
    assert protected.sent == payload.stat().st_size
    assert audit(plain) == []
    assert recorded(plain, told).unreported == {}


def test_a_report_under_another_sites_name_is_refused_and_the_others_is_heard(
    plain: Staged,
) -> None:
    train_round(plain, 1)
    topic, exchange = plain.coordinator.topic(1), plain.coordinator.mailbox.exchange
    forged = sign(plain.home(SITE).identity(), topic, KIND, COORDINATOR, b"[]")
    header = replace(forged.header, sender=OTHER)
    exchange.post(replace(forged, signed=replace(forged.signed, header=header)))
    told = reports(plain.coordinator, 1, "protect", [OTHER])
    assert all(isinstance(each, StageResult) and each.site == OTHER for each in told)


def test_a_report_of_the_attempt_before_does_not_count(plain: Staged) -> None:
    train_round(plain, 1)
    plain.resume()
    begin_round(plain.coordinator, 1)
    (told,) = reports(plain.coordinator, 1, "protect", [SITE])
    assert isinstance(told, Unreported)


def test_stages_of_the_attempt_before_are_in_no_report(plain: Staged) -> None:
    """A site that was interrupted after its training tells of the training that it sent."""
    begin_round(plain.coordinator, 1)
    train_site(plain.call(SITE), 1)
    plain.resume()
    train_round(plain, 1)
    first = reports(plain.coordinator, 1, "protect", [SITE])[0]
    assert isinstance(first, StageResult)
    assert first.started is not None
    assert first.started >= plain.coordinator.begun[1]
    assert not plain.store(SITE).untold_path.exists()


def test_a_training_of_the_attempt_before_is_not_told_as_one_of_this(plain: Staged) -> None:
    begin_round(plain.coordinator, 1)
    for stage in (train_site, compress_site):
        stage(plain.call(SITE), 1)
    plain.resume()
    begin_round(plain.coordinator, 1)
    protect_site(plain.call(SITE), 1)
    (told,) = reports(plain.coordinator, 1, "protect", [SITE])
    assert isinstance(told, Unreported)


def test_a_site_that_may_send_no_more_has_done_its_stage_and_tells_nothing(plain: Staged) -> None:
    topic = train_round(plain, 1)
    size = len(plain.coordinator.mailbox.receive(topic, kinds.PAYLOAD, SITE, 10**9).body)
    plain.resume()
    sent = plain.store(SITE).count_sent(0)
    text = PERMISSIVE.replace(
        "max_megabytes: 1000000000000", f"max_megabytes: {(sent + size) / 1e6}"
    )
    plain.home(SITE).write_policy(text)
    topic = train_round(plain, 1)
    assert add_payloads(plain.coordinator, topic, plain.sites).responded == plain.sites
    (told,) = reports(plain.coordinator, 1, "protect", [SITE])
    assert isinstance(told, Unreported)


def test_nothing_but_its_end_passes_from_a_worker(plain: Staged) -> None:
    for run in (run_alone, run_and_report):
        assert run(lambda call: "what a worker saw", plain.call(SITE)) is None


@pytest.fixture
def private(tmp_path: Path, data: Path) -> Staged:
    return begin(small_experiment(data, **PRIVATE), tmp_path / "runs")


def test_a_private_site_tells_no_times_no_memory_and_no_loss(private: Staged) -> None:
    train_round(private, 1)
    topic = private.coordinator.topic(1)
    body = private.coordinator.mailbox.receive(topic, KIND, SITE, 10**6).body
    for stage in json.loads(body):
        assert [stage[n] for n in ("started", "ended", "peak_rss_mb", "loss")] == [None] * 4
    sent = [line for line in private.home(SITE).audit.lines() if line["event"] == "sent"]
    assert [line["kind"] for line in sent][-2:] == [kinds.PAYLOAD, KIND]
    told = reports(private.coordinator, 1, "protect", private.sites)
    first = told[0]
    assert isinstance(first, StageResult)
    assert first.epsilon is not None
    assert not recorded(private, told).timed


@pytest.mark.parametrize("told", [{"epsilon": 1e6}, {"started": 1.0}, {"loss": 0.5}])
def test_a_private_site_that_tells_more_than_it_may_is_not_recorded(
    private: Staged, told: dict[str, Any]
) -> None:
    train_round(private, 1)
    retell(private, lie(**told))
    (each,) = reports(private.coordinator, 1, "protect", [SITE])
    assert isinstance(each, Unreported)


def test_what_rounds_that_are_begun_anew_come_to_is_what_a_site_may_have_spent(
    private: Staged,
) -> None:
    """Each attempt at a round from another state is a release, and an honest site says so."""
    for attempt in (1, 2):
        train_round(private, 1)
        for told in reports(private.coordinator, 1, "protect", private.sites):
            assert isinstance(told, StageResult), attempt
        start_again(private, 1)
    run = private.coordinator.run
    one, three = most_epsilon(run, SITE, 1), most_epsilon(run, SITE, 3)
    assert one is not None
    assert three is not None
    assert one < three
    more = replace(run, planned={site: Release(9.0, 0.25, 4) for site in run.sites})
    assert (most_epsilon(more, SITE, 1) or 0) < one


def test_a_lying_report_of_privacy_leaves_the_summary_without_a_number(private: Staged) -> None:
    train_round(private, 1)
    for site in private.sites:
        tell_privacy(private.call(site))
    honest = receive_reports(private.coordinator)
    assert None not in honest.values()
    assert summarise_privacy(private.experiment, honest)["epsilon"] > 0
    retell(private, lambda value: value | {"epsilon": 0.0, "holder": "\x1b[2J"},
           kinds.PRIVACY_REPORT, 0)  # fmt: skip
    told = receive_reports(private.coordinator)
    assert [site for site, report in told.items() if report is None] == [SITE]
    summary = summarise_privacy(private.experiment, told)
    assert (summary["epsilon"], summary["unreported"]) == (None, [SITE])
    assert summary["per_site"][SITE]["epsilon"] is None
    assert summary["per_site"][OTHER] == {
        key: honest[OTHER][key] for key in summary["per_site"][OTHER]
    }


def test_a_warning_that_commands_a_terminal_is_shown_and_does_nothing() -> None:
    counts = {"train": 1, "val": 1, "test": 1}
    release = Release(1.0, 0.1, 1)
    sent = Joining(counts, release, "files", ("\x1b[2Jyour run is fine\n", "x" * 10**5))
    first, second = Joining.from_bytes(sent.to_bytes()).warnings
    assert first == r"\x1b[2Jyour run is fine\x0a"
    assert len(second) < LONGEST_WARNING + 40


def test_a_stage_that_sends_nothing_sends_no_report(plain: Staged) -> None:
    begin_round(plain.coordinator, 1)
    train_site(plain.call(SITE), 1)
    found = plain.coordinator.mailbox.exchange
    for kind in ("local_train", "compress", "protect"):
        assert not found.find(place(plain.coordinator.topic(1), kinds.REPORT + kind))


def test_each_record_is_read_once(plain: Staged, monkeypatch: pytest.MonkeyPatch) -> None:
    from federated.stages import coordinator as module

    read: list[Path] = []
    whole = module.read_record
    monkeypatch.setattr(
        module, "read_record", lambda path, n, sites: read.append(path) or whole(path, n, sites)
    )
    own = {site: {"cases": {"train": 1}} for site in plain.sites}
    for number in (1, 2, 3):
        path = plain.folder.record_path(number)
        path.parent.mkdir(exist_ok=True)
        told = {"round": number, "sites": [], "metrics": {}, "per_site": own}
        path.write_text(json.dumps(told))
        for _ in range(3):
            assert len(plain.coordinator.records()) == number
    assert len(read) == 3
    # Of many rounds of many sites it would not fit into memory.
    assert all(record["per_site"] == {} for record in plain.coordinator.records())
    assert plain.folder.records(sites=plain.sites[:1])[0]["per_site"].keys() == {plain.sites[0]}
    assert plain.folder.records()[0]["per_site"] == own
