"""What a site of a consortium does of what it is asked, and what it refuses."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import FolderExchange
from federated.exchange.message import MessageRefusedError, Topic, sign
from federated.files import PRIVATE, write_json
from federated.site.home import SiteHome
from federated.stages import asked as asked_module
from federated.stages.asked import (
    AskedBefore,
    answer,
    has_answered,
    has_done,
    said_of,
    too_late,
    without_places,
)
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


def test_where_a_sites_home_lies_is_told_to_nobody(run):
    asked, _ = asked_file(run, number=91)
    home = run.home("site-00")
    said = f"The reason stays with the site, in {home.run('run').error_path}."
    answer(home, FolderExchange(run.folder.exchange_path), asked, said)
    with pytest.raises(RefusalError, match=r"in site-00:runs/run/error\.txt") as told:
        hear_word(run.coordinator, "site-00", asked)
    assert str(home.root) not in str(told.value)


@pytest.fixture
def known_places(tmp_path, monkeypatch):
    """A site's home in CONSILIUM_HOME, with data and a ledger elsewhere."""
    monkeypatch.setenv("CONSILIUM_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("CONSILIUM_LEDGER", str(tmp_path / "books" / "ledger"))
    home = SiteHome(tmp_path / "own" / "site" / "clinic-a")
    home.root.mkdir(parents=True)
    write_json(home.settings_path, {"data": str(tmp_path / "images")}, PRIVATE)
    return home


def test_a_site_says_of_no_place_where_it_lies(known_places, tmp_path):
    home = known_places
    for said, told in [
        (
            f"Read {home.root}/runs/r/proposal.json, and then: consilium site approve r "
            f"--home {home.root}",
            "Read clinic-a:runs/r/proposal.json, and then: consilium site approve r",
        ),
        (f"{home.root}.", "clinic-a:."),
        (
            f"{tmp_path}/books/ledger/clinic-a.jsonl is cut",
            "clinic-a's ledger:clinic-a.jsonl is cut",
        ),
        (f"in {tmp_path}/own/answered", "in clinic-a's CONSILIUM_HOME:answered"),
        (f"no {tmp_path}/images/Jane_Roe/1.dcm there", "no clinic-a's data there"),
    ]:
        assert without_places(home, said) == told
        assert str(tmp_path) not in told
    # Another path that only begins so is none of the site's home.
    assert without_places(home, f"{home.root}b").endswith("clinic-ab")


@pytest.mark.parametrize("error", [MemoryError("4 GB"), KeyError("case 7"), ConsiliumError("case")])
def test_of_a_private_run_all_errors_are_told_in_the_same_words(error):
    said = said_of(error, "clinic-a", "train_site", Path("error.txt"), private=True)
    assert said == (
        "clinic-a could not finish its part, train_site. The run is private, so the reason stays "
        "with the site, in error.txt."
    )


def test_of_another_run_the_kind_of_an_error_is_told():
    said = said_of(MemoryError(), "clinic-a", "train_site", Path("error.txt"), private=False)
    assert "(MemoryError)" in said


def test_what_was_begun_stays_known_and_half_a_line_is_none(tmp_path):
    home = SiteHome(tmp_path / "clinic-a")
    home.root.mkdir(mode=0o700)
    asked = Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    AskedBefore(home).note(asked)
    again = replace(asked, number=5, digest="another")
    path = home.run("run").asked_path(1)
    path.write_text(path.read_text() + '["half')
    assert "asked the same before" in str(AskedBefore(home).repeated(again))
    # So is one that a full disk has left, and what could be written later.
    path.write_text('["ha\n' + path.read_text())
    assert "asked the same before" in str(AskedBefore(home).repeated(again))
    path.write_text("half\n" + path.read_text())
    with pytest.raises(ConsiliumError, match="cannot be read"):
        AskedBefore(home).repeated(again)


@pytest.fixture
def synced(monkeypatch):
    """What a power cut would leave of each file: its content as it was last synced."""
    left, real = {}, os.fsync

    def fsync(handle):
        real(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        if path.is_file():
            left[path] = path.read_bytes()

    monkeypatch.setattr(os, "fsync", fsync)
    return left


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux which file is synced")
def test_a_power_cut_makes_a_site_forget_nothing_that_it_has_begun_answered_or_sent(
    tmp_path, synced
):
    home = SiteHome(tmp_path / "clinic-a")
    home.root.mkdir(mode=0o700)
    before, asked = AskedBefore(home), Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    before.note(asked)
    path = home.run("run").asked_path(1)
    assert synced[path] == path.read_bytes()
    before.note_answered(asked, True)
    home.run("run").count_sent(7)
    for each in (path, home.run("run").root / "sent.txt"):
        each.write_bytes(synced[each])
    after = AskedBefore(home)
    assert after.is_answered(asked)
    assert "asked the same before" in str(after.repeated(replace(asked, digest="another")))
    assert home.run("run").count_sent(1) == 8


@pytest.mark.parametrize("stage", ERASING)
def test_asking_to_erase_without_end_takes_no_room_from_what_is_answered(
    tmp_path, monkeypatch, stage
):
    monkeypatch.setattr(asked_module, "MOST_ERASED_IN_ONE", 3)
    monkeypatch.setattr(asked_module, "MOST_BEGUN_IN_ONE", 2)
    home = SiteHome(tmp_path / "clinic-a")
    home.root.mkdir(mode=0o700)
    before, asked = AskedBefore(home), Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    before.note(asked)
    erasing = [replace(asked, stage=stage, arguments=(), digest=f"{n}") for n in range(9)]
    for each in erasing:
        assert before.repeated(each) is None
        before.note_answered(each, True)
    before.note_answered(asked, True)
    for known in (before, AskedBefore(home)):
        assert [known.is_answered(each) for each in erasing] == [True] * 3 + [False] * 6
        assert known.is_answered(asked)
    assert len(home.run("run").asked_path(1).read_text().splitlines()) == 1 + 3 + 1


def test_a_stage_misses_the_one_before_it_where_that_was_answered_and_is_not_done(tmp_path):
    home = SiteHome(tmp_path / "clinic-a")
    home.root.mkdir(mode=0o700)
    before, trained = AskedBefore(home), Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    compressed = replace(trained, number=5, stage="compress_site", digest="another")
    assert before.missing_before(compressed) is None
    before.note(trained)
    # It is gone on with first.
    assert before.missing_before(compressed) is None
    before.note_answered(trained, False)
    for known in (before, AskedBefore(home)):
        assert known.is_answered(trained)
        assert known.missing_before(compressed) == "train_site"
        assert known.missing_before(replace(compressed, attempt=2)) is None
        assert known.missing_before(replace(compressed, arguments=(3,), round=3)) is None
        assert known.missing_before(trained) is None
    other = replace(trained, arguments=(3,), round=3, digest="third")
    before.note(other)
    before.note_answered(other, True)
    assert before.missing_before(replace(compressed, arguments=(3,), round=3)) is None


def test_the_same_is_done_once_in_an_attempt(tmp_path):
    home = SiteHome(tmp_path / "clinic-a")
    home.root.mkdir(mode=0o700)
    before, asked = AskedBefore(home), Ask("run", 1, 2, 4, "train_site", (2,), "digest")
    assert before.repeated(asked) is None
    # Only what is begun is noted.
    assert before.repeated(replace(asked, digest="another")) is None
    before.note(asked)
    assert before.repeated(asked) is None
    for number in range(50):
        before.note(Ask(f"run-{number}", 1, 0, 1, "take_part", (), "digest"))
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
    assert has_answered(home, exchange, refused)
    assert [has_done(home, exchange, each) for each in (done, refused)] == [True, False]
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
