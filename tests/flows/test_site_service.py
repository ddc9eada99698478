"""What a site's process does of what it is asked, whoever asks and whatever its machine is like."""

import errno
import json
import logging
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from federated.exchange import kinds
from federated.exchange.folder import EVERYONE, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import Topic, open_message, sign
from federated.exchange.policy import PERMISSIVE
from federated.site.home import SiteHome
from federated.stages.asked import AskedBefore
from federated.stages.asking import LEAVE
from flows import site_flow, site_service
from flows.site_flow import desk
from flows.site_service import SiteService
from tests.federated.exchange.parties import identity

SITE, MOST_S = "clinic", 20


class Site:
    """A site's service whose flow writes down what it is asked, and what its coordinator sends."""

    def __init__(self, root):
        self.coordinator = identity(COORDINATOR)
        self.home = SiteHome(root / SITE)
        self.home.root.mkdir(mode=0o700)
        self.home.know(self.coordinator.public)
        self.home.write_policy(PERMISSIVE)
        self.exchange = JournalledExchange(root / "exchange")
        self.done, self.said, self.begun, self.taken = [], [], [], []
        self.number = 0
        self.proposed = set()
        self.fails, self.refuses = "", None
        # A flow that has begun waits for it before each stage.
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def flow(self, run, attempt):
        mine = desk.get()
        self.begun.append((run, attempt))
        if self.fails:
            raise RuntimeError(self.fails)
        for asked in mine.asks(run, attempt):
            if asked.stage == LEAVE:
                break
            self.taken.append(asked.stage)
            assert self.may_go_on.wait(MOST_S)
            self.done.append((asked.run, asked.attempt, asked.stage, *asked.arguments))
            mine.tell(asked, self.refuses)
        return 0

    def propose(self, run, attempt):
        if (run, attempt) not in self.proposed:
            self.proposed.add((run, attempt))
            topic = Topic(self.coordinator.public.consortium, run, attempt)
            self.exchange.post(sign(self.coordinator, topic, kinds.PROPOSAL, EVERYONE, b"{}"))

    def ask(self, stage, *arguments, run="run", attempt=1, number=None, proposed=True):
        if proposed:
            self.propose(run, attempt)
        self.number += 1
        first = arguments[0] if arguments and isinstance(arguments[0], int) else 0
        topic = Topic(self.coordinator.public.consortium, run, attempt, first)
        body = json.dumps({"stage": stage, "arguments": list(arguments)}).encode()
        kind = f"{kinds.ASK}{number or self.number}"
        self.exchange.post(sign(self.coordinator, topic, kind, SITE, body))
        return Place(run, first, attempt, COORDINATOR, f"{kinds.DONE}{self.number}", SITE)

    def word(self, place):
        """What the site says of something, once it does: nothing, or why it has not done it."""
        wait_for(lambda: self.exchange.find(place))
        (path,) = self.exchange.find(place)
        with open_message(path) as unread:
            return json.loads(unread.read(self.home.identity().public, kinds.MOST_DONE).body)[
                "error"
            ]

    @contextmanager
    def at_work(self):
        service = SiteService(self.home, self.home.root, self.exchange, self.said.append)
        thread = threading.Thread(target=service.run, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            self.may_go_on.set()
            service.stop()
            thread.join(MOST_S)
        assert not thread.is_alive()


def wait_for(what):
    until = time.monotonic() + MOST_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.fixture
def site(tmp_path, monkeypatch):
    made = Site(tmp_path)
    monkeypatch.setattr(site_service, "fl_site", made.flow)
    monkeypatch.setattr(site_service, "AGAIN", 0.01)
    return made


def test_a_stage_is_done_once_however_often_it_is_asked(site):
    with site.at_work():
        assert site.word(site.ask("train_site", 1)) is None
        for _ in range(3):
            assert "asked the same before in attempt 1" in site.word(site.ask("train_site", 1))
        assert site.word(site.ask("train_site", 1, attempt=2)) is None
    assert [done[1] for done in site.done] == [1, 2]
    # A process that is started anew knows of it too.
    with site.at_work():
        assert "asked the same before" in site.word(site.ask("train_site", 1, attempt=2))
    assert len(site.done) == 2


def asks_of(site):
    """What the site is asked, by its files; it removes those of rounds before meanwhile."""
    while True:
        with suppress(FileNotFoundError):
            asked = site.exchange.root.glob(f"*/*/*/{SITE}/{kinds.ASK}*/*/*.message")
            return {path: path.read_bytes() for path in asked}


def test_a_message_that_is_delivered_again_makes_a_site_do_nothing_again(site):
    """Also once it has forgotten its own word, which it keeps for two rounds, and starts anew."""
    stages = [("train_site", 1), ("train_site", 2), ("forget_secrets",), ("train_site", 3)]
    kept = {}
    with site.at_work():
        for stage in stages:
            assert site.word(site.ask(*stage)) is None
            kept |= asks_of(site)
    done = list(site.done)
    assert len(kept) == len(stages) == len(done)

    def delivered_again():
        for number in site.exchange.rounds("run"):
            site.exchange.forget("run", number, keep=(kinds.PROPOSAL,))
        for path, content in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            with open_message(path) as unread:
                entry = site.exchange._told(unread.signed, len(content))
            site.exchange.journal.append([entry])

    # The last that it reads each time: what comes before it was read then.
    with site.at_work():
        delivered_again()
        assert site.word(site.ask("evaluate_site", 3)) is None
    with site.at_work():
        assert site.word(site.ask("evaluate_site", 4)) is None
    assert site.done == [*done, ("run", 1, "evaluate_site", 3), ("run", 1, "evaluate_site", 4)]
    again = [line for line in site.home.audit.lines() if line.get("reason") == "delivered again"]
    assert len(again) >= len(stages)


@pytest.mark.parametrize("noted", [True, False])
def test_what_comes_after_a_stage_that_failed_is_left_out_by_a_new_process_too(
    site, monkeypatch, noted
):
    """Also where the process ended when it had said so and not noted it yet."""
    site.refuses = "clinic has no power"
    if not noted:
        monkeypatch.setattr(AskedBefore, "note_answered", lambda *_: None)
    with site.at_work():
        assert site.word(site.ask("train_site", 1)) == site.refuses
        site.refuses = None
        assert site.word(site.ask("train_site", 2)) is None
    monkeypatch.undo()
    done = []
    monkeypatch.setattr(site_flow, "get_run_logger", logging.getLogger)
    monkeypatch.setattr(site_flow, "_done", lambda _, asked: done.append(asked.arguments[0]))
    monkeypatch.setattr(site_service, "fl_site", site_flow.fl_site.fn)
    with site.at_work():
        assert "local-train comes before it, and is not done" in site.word(
            site.ask("compress_site", 1)
        )
        assert "compress comes before it" in site.word(site.ask("protect_site", 1))
        assert site.word(site.ask("compress_site", 2)) is None
    assert done == [2]


def test_a_site_that_is_told_to_end_begins_nothing_more(site):
    site.may_go_on.clear()
    with site.at_work() as service:
        first, second = site.ask("train_site", 1), site.ask("train_site", 2)
        wait_for(lambda: len(service._asked_now()) == 2 and site.taken)
        service.stop()
        site.may_go_on.set()
        wait_for(lambda: site.done)
    time.sleep(0.1)
    assert site.done == [("run", 1, "train_site", 1)]
    # Nobody is told anything: a process that is started anew goes on with both.
    assert not site.exchange.find(first)
    with site.at_work():
        assert (site.word(first), site.word(second)) == (None, None)


def full_disk(_message):
    raise OSError(errno.ENOSPC, "no space is left")


def test_what_was_begun_and_not_answered_is_gone_on_with_by_a_new_process(site, monkeypatch):
    site.may_go_on.clear()
    place = site.ask("train_site", 1)
    with site.at_work():
        wait_for(lambda: site.begun)
        # It ends before it has said that it is done.
        monkeypatch.setattr(site.exchange, "post", full_disk)
        site.may_go_on.set()
        wait_for(lambda: site.done)
    monkeypatch.undo()
    monkeypatch.setattr(site_service, "fl_site", site.flow)
    with site.at_work():
        assert site.word(place) is None
    assert site.done == [("run", 1, "train_site", 1)] * 2


def test_neither_other_runs_nor_a_new_process_make_a_site_forget_what_it_did(site, monkeypatch):
    monkeypatch.setattr("federated.stages.asked.MOST_KNOWN", 2)
    with site.at_work():
        assert site.word(site.ask("train_site", 1)) is None
        for number in range(6):
            assert site.word(site.ask("take_part", run=f"other-{number}")) is None
        assert "asked the same before" in site.word(site.ask("train_site", 1))
    with site.at_work():
        assert "asked the same before" in site.word(site.ask("train_site", 1))
    assert [done for done in site.done if done[0] == "run"] == [("run", 1, "train_site", 1)]


def test_what_is_refused_for_want_of_room_is_done_when_it_is_asked_again(site, monkeypatch):
    monkeypatch.setattr(site_service, "MOST_WAITING", 1)
    site.may_go_on.clear()
    with site.at_work():
        first = site.ask("train_site", 1)
        assert "1 other things wait" in site.word(site.ask("train_site", 2))
        site.may_go_on.set()
        assert site.word(first) is None
        assert site.word(site.ask("train_site", 2)) is None


def test_nothing_is_begun_or_kept_for_a_run_that_is_not_proposed(site):
    with site.at_work():
        said = site.word(site.ask("train_site", 1, run="made-up", proposed=False))
        assert "nothing is proposed to it" in said
        assert "nothing is proposed to it" in site.word(
            site.ask("train_site", 1, attempt=2, proposed=False)
        )
    assert not site.begun
    assert not (site.home.root / "runs").exists()


def test_of_a_private_run_the_site_tells_only_that_it_works(site, monkeypatch):
    site.may_go_on.clear()
    with site.at_work() as service:
        # Of a run without a plan that it can read it takes the run for private.
        private = site.ask("train_site", 1, run="private")
        wait_for(lambda: service.doing() != "waits")
        assert service.doing() == "works"
        monkeypatch.setattr(site_service, "is_private", lambda call: call.run == "private")
        other = site.ask("train_site", 1)
        wait_for(lambda: "train_site of run" in service.doing())
        assert service.doing() == "train_site of run; works"
        site.may_go_on.set()
        assert (site.word(private), site.word(other)) == (None, None)


def test_an_ask_that_no_word_could_have_a_place_for_stops_nothing(site):
    with site.at_work():
        site.ask("train_site", 1, number="9" * 96)
        assert site.word(site.ask("train_site", 2)) is None
    assert [line["reason"] for line in site.home.audit.lines() if line["event"] == "refused"]


def test_messages_of_old_rounds_go_whatever_number_a_round_has(site):
    with site.at_work():
        for number in (1, 2, 3, 2**53):
            assert site.word(site.ask("train_site", number)) is None
        wait_for(lambda: site.exchange.rounds("run") == [0, 2**53])


def test_a_round_that_is_not_done_makes_nothing_go(site):
    site.refuses = "the plan of the run has 3 rounds"
    with site.at_work():
        for number in (1, 2**53):
            assert site.word(site.ask("train_site", number)) == site.refuses
        site.word(site.ask("train_site", 3))
    assert site.exchange.rounds("run") == [0, 1, 3, 2**53]


def test_thousands_of_runs_are_not_begun_at_once(site, monkeypatch):
    monkeypatch.setattr(site_service, "MOST_BEGUN", 4)
    site.may_go_on.clear()
    with site.at_work():
        asked = [site.ask("take_part", run=f"run-{number}") for number in range(40)]
        for place in asked[4:]:
            assert "4 runs are gone on with" in site.word(place)
        assert len(site.begun) == 4
        site.may_go_on.set()
        assert [site.word(place) for place in asked[:4]] == [None] * 4
        # A run that waits for nothing makes room for another one, and is begun again.
        assert site.word(site.ask("take_part", run="one-more")) is None
        assert site.word(site.ask("train_site", 1, run="run-0")) is None
    assert len(site.begun) == 6


def test_so_much_waits_in_a_run_and_so_many_attempts_it_has(site, monkeypatch):
    monkeypatch.setattr(site_service, "MOST_WAITING", 3)
    site.may_go_on.clear()
    with site.at_work():
        asked = [site.ask("train_site", number) for number in range(1, 6)]
        assert "3 other things wait" in site.word(asked[3])
        site.may_go_on.set()
        assert site.word(asked[2]) is None
        assert "at most 1000 attempts" in site.word(
            site.ask("take_part", attempt=1001, run="other")
        )


def test_a_run_that_was_left_early_can_be_gone_on_with(site):
    with site.at_work():
        site.ask(LEAVE)
        assert site.word(site.ask("train_site", 1)) is None
        site.ask(LEAVE)
        assert site.word(site.ask("train_site", 2)) is None
        site.ask(LEAVE)
        wait_for(lambda: len([said for said in site.said if "ended" in said]) == 2)


def test_an_attempt_that_is_over_is_not_begun_again(site):
    site.may_go_on.clear()
    with site.at_work():
        old = site.ask("train_site", 1)
        wait_for(lambda: site.begun)
        newer = site.ask("train_site", 1, attempt=2)
        site.may_go_on.set()
        assert site.word(newer) is None
        assert site.word(old) is None
        # Told of once more, as where the journal is written anew.
        late = site.ask("train_site", 2)
        assert site.word(site.ask("train_site", 2, attempt=2)) is None
        assert not site.exchange.find(late)
    assert site.begun == [("run", 1), ("run", 2)]


def test_a_flow_that_cannot_begin_is_said_and_the_next_one_begins(site):
    site.fails = "Prefect does not answer"
    with site.at_work():
        assert "could not begin" in site.word(site.ask("train_site", 1))
        site.fails = ""
        assert site.word(site.ask("train_site", 2)) is None


def test_a_full_disk_is_said_and_what_waits_is_done_once_there_is_room(site, monkeypatch):
    real, full = site.exchange.post, threading.Event()

    def post(message):
        if full.is_set() and message.header.kind.startswith(kinds.DONE):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(message)

    monkeypatch.setattr(site.exchange, "post", post)
    full.set()
    with site.at_work():
        first, second = site.ask("train_site", 1), site.ask("train_site", 2)
        wait_for(lambda: any("No space left" in said for said in site.said))
        assert not site.exchange.find(first)
        full.clear()
        assert (site.word(first), site.word(second)) == (None, None)
    assert len([said for said in site.said if "No space left" in said]) == 1


def test_a_full_disk_stops_no_reader_of_what_is_asked(site, monkeypatch):
    from federated.exchange.audit import AuditLog

    real, full = AuditLog.add, threading.Event()

    def add(log, event, **what):
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(log, event, **what)

    monkeypatch.setattr(AuditLog, "add", add)
    full.set()
    with site.at_work():
        site.ask("os.system")
        wait_for(lambda: any("No space left" in said for said in site.said))
        full.clear()
        assert site.word(site.ask("train_site", 1)) is None
