"""What a site of a consortium does of what it is asked, and what it refuses."""

import json
from dataclasses import replace

import pytest

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.folder import FolderExchange
from federated.exchange.message import MessageRefusedError, Topic, sign
from federated.stages.asked import AskedBefore, answer, has_answered, too_late
from federated.stages.asking import (
    ERASING,
    LEAVE,
    LONGEST_NAME,
    MOST_NAMES,
    STAGES,
    Ask,
    ask,
    hear_word,
    is_answered,
    read_ask,
    stage_named,
)
from federated.stages.local_train import train_site
from tests.federated.staged_run import begin, small_experiment, small_images


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("asking")
    return begin(small_experiment(small_images(folder)), folder / "runs")


def asked_file(run, site="site-00", number=1, stage="train_site", arguments=(1,)):
    asked = ask(run.coordinator, site, number, stage, arguments)
    (path,) = run.folder.exchange_path.glob(
        f"*/round-*/attempt-*/{site}/{kinds.ASK}{number}/*/{asked.digest[:32]}.message"
    )
    return asked, path


def test_a_site_reads_what_it_is_asked(run):
    asked, path = asked_file(run)
    assert read_ask(run.home("site-00"), path) == asked
    assert asked.round == 1


def test_what_another_site_is_asked_is_not_for_it(run):
    _, path = asked_file(run, number=2)
    with pytest.raises(MessageRefusedError, match="asks site-01 nothing"):
        read_ask(run.home("site-01"), path)


@pytest.mark.parametrize(
    "body",
    [
        {"stage": "os.system", "arguments": ["rm"]},
        {"stage": "held_cases", "arguments": []},
        {"stage": "train_site", "arguments": [1.5]},
        {"stage": "train_site", "arguments": [["a"] * (MOST_NAMES + 1)]},
        {"stage": "train_site", "arguments": ["a" * (LONGEST_NAME + 1)]},
        {"stage": "train_site", "arguments": [-1]},
        {"stage": "train_site", "arguments": [2**53 + 1]},
        {"stage": "train_site", "arguments": "1"},
        {"stage": "take_key", "arguments": {"site-01": 0}},
        {"stage": ["train_site"], "arguments": []},
        {"stage": "train_site"},
        [],
    ],
)
def test_what_is_no_stage_is_refused(run, body):
    identity, start = run.coordinator.mailbox.me, run.coordinator.start
    topic = Topic(start.consortium, start.run, start.attempt)
    message = sign(identity, topic, f"{kinds.ASK}77", "site-00", json.dumps(body).encode())
    path = run.folder.root / "forged.message"
    path.write_bytes(message.to_bytes())
    with pytest.raises(MessageRefusedError, match=r"asked by .* is none"):
        read_ask(run.home("site-00"), path)


def signed_ask(run, kind, arguments, round_number=0):
    """A message of the coordinator's that is not made as it makes what it asks."""
    identity, start = run.coordinator.mailbox.me, run.coordinator.start
    topic = Topic(start.consortium, start.run, start.attempt, round_number)
    body = json.dumps({"stage": "train_site", "arguments": arguments}).encode()
    path = run.folder.root / f"{kind[:20]}-{round_number}.message"
    path.write_bytes(sign(identity, topic, kind, "site-00", body).to_bytes())
    return path


@pytest.mark.parametrize(
    "kind",
    # The last is one that the site's word could have no place for, by the length of its name.
    ["ask-", "ask-0", "ask-01", "ask--1", "ask-1.5", "ask-\u0661", f"ask-{'9' * 96}", "asked-1"],
)
def test_the_number_of_what_is_asked_has_one_form(run, kind):
    with pytest.raises(MessageRefusedError, match="asks site-00 nothing"):
        read_ask(run.home("site-00"), signed_ask(run, kind, [1], 1))


@pytest.mark.parametrize(("said", "arguments"), [(2**53, [1]), (0, [2]), (3, [2]), (1, ["a"])])
def test_what_is_asked_has_arguments_of_its_own_round(run, said, arguments):
    with pytest.raises(MessageRefusedError, match="arguments of another"):
        read_ask(run.home("site-00"), signed_ask(run, "ask-9", arguments, said))


def test_the_longest_word_of_a_site_is_heard(run):
    asked, _ = asked_file(run, number=90)
    answer(
        run.home("site-00"), FolderExchange(run.folder.exchange_path), asked, "\U0001f3e5" * 9999
    )
    with pytest.raises(RefusalError, match="\U0001f3e5" * 100):
        hear_word(run.coordinator, "site-00", asked)


def test_the_same_is_done_once_in_an_attempt():
    before, asked = AskedBefore(), Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    assert before.repeated(asked) is None
    assert before.repeated(asked) is None
    again = replace(asked, number=5, digest="another")
    assert "asked the same before" in str(before.repeated(again))
    assert before.repeated(replace(again, attempt=2)) is None
    assert before.repeated(replace(again, arguments=(3,), round=3)) is None
    for stage in ERASING:
        assert before.repeated(replace(asked, stage=stage)) is None
        assert before.repeated(replace(again, stage=stage)) is None


def test_only_the_coordinator_asks(run):
    other, start = run.home("site-01").identity(), run.coordinator.start
    topic = Topic(start.consortium, start.run, start.attempt)
    body = json.dumps({"stage": "train_site", "arguments": [1]}).encode()
    path = run.folder.root / "of-a-site.message"
    path.write_bytes(sign(other, topic, f"{kinds.ASK}78", "site-00", body).to_bytes())
    with pytest.raises(MessageRefusedError, match="not signed by coordinator"):
        read_ask(run.home("site-00"), path)


def test_a_cue_that_no_plan_goes_with_makes_a_site_do_nothing(run):
    asked, path = asked_file(run, number=3)
    stage = stage_named(read_ask(run.home("site-00"), path).stage)
    assert stage is train_site
    with pytest.raises(RefusalError, match="no message round-plan"):
        stage(run.call("site-00"), *asked.arguments)


def test_every_stage_is_there(run):
    assert all(callable(stage_named(name)) for name in STAGES)
    with pytest.raises(RefusalError, match="no stage"):
        stage_named("eval")


def test_the_coordinator_hears_a_sites_word(run):
    exchange = FolderExchange(run.folder.exchange_path)
    home = run.home("site-00")
    done, refused = (asked_file(run, number=n)[0] for n in (4, 5))
    assert not is_answered(run.coordinator, "site-00", done)
    answer(home, exchange, done)
    answer(home, exchange, refused, "site-00 has no power.")
    assert has_answered(home, exchange, done)
    assert is_answered(run.coordinator, "site-00", done)
    hear_word(run.coordinator, "site-00", done)
    with pytest.raises(RefusalError, match="no power"):
        hear_word(run.coordinator, "site-00", refused)


def test_a_word_on_something_else_is_none(run):
    exchange = FolderExchange(run.folder.exchange_path)
    first, second = (asked_file(run, number=n)[0] for n in (6, 7))
    answer(run.home("site-00"), exchange, replace(second, digest=first.digest))
    with pytest.raises(RefusalError, match="is none"):
        hear_word(run.coordinator, "site-00", second)


@pytest.mark.parametrize(
    ("other", "late"),
    [
        ({"attempt": 2}, "attempt 2 has begun"),
        ({"round": 3, "number": 9}, "round 3 has begun"),
        ({"stage": LEAVE, "round": 0, "number": 9}, "the run has ended"),
        ({"round": 3, "run": "another"}, None),
        ({"number": 9}, None),
    ],
)
def test_what_the_coordinator_does_not_wait_for_is_left_out(other, late):
    asked = Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    found = too_late(asked, [asked, replace(asked, **other)])
    assert found is None if late is None else late in str(found)
