"""What an exchange's journal tells, whoever writes at once, and wherever somebody is killed."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from federated.exchange import journal as journal_module
from federated.exchange.folder import EVERYONE
from federated.exchange.identity import COORDINATOR
from federated.exchange.journal import JOURNAL, Journal, JournalledExchange, Position
from federated.exchange.message import Message, Topic, sign
from tests.federated.exchange.parties import SITES, TOPIC, identity

ME = identity(SITES[0])


def message(body: bytes, round_number: int = 1, kind: str = "report-x") -> Message:
    topic = Topic(TOPIC.consortium, TOPIC.run, TOPIC.attempt, round_number)
    return sign(ME, topic, kind, EVERYONE, body)


def told(exchange: JournalledExchange, after: Position | None = None) -> list[str]:
    return [entry.digest for entry in exchange.entries(after or Position())[0]]


@pytest.fixture
def exchange(tmp_path: Path) -> JournalledExchange:
    return JournalledExchange(tmp_path / "exchange")


def test_entries_say_what_was_posted_in_order_and_from_where_to_go_on(exchange) -> None:
    first, second = message(b"1"), message(b"22", kind="payload")
    exchange.post(first)
    (entry,), position = exchange.entries(Position())
    assert (entry.sender, entry.recipient, entry.kind, entry.run, entry.digest) == (
        SITES[0], EVERYONE, "report-x", TOPIC.run, first.signed.digest,
    )  # fmt: skip
    assert entry.size == first.size == (exchange.root / entry.path).stat().st_size
    assert exchange.entries(position) == ([], position)
    exchange.post(second)
    assert told(exchange, position) == [second.signed.digest]
    assert (exchange.root / JOURNAL).stat().st_mode & 0o777 == 0o600


def post_many(root: Path, number: int) -> None:
    exchange = JournalledExchange(root)
    for index in range(40):
        exchange.post(message(f"{number} {index}".encode()))


def test_what_many_processes_post_at_once_is_all_told(exchange) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=post_many, args=(exchange.root, n)) for n in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    found = told(exchange)
    assert len(found) == len(set(found)) == 160


def test_nothing_is_lost_that_is_written_while_others_compact(exchange) -> None:
    done = threading.Event()

    def compact() -> None:
        while not done.is_set():
            exchange.journal.rewrite(exchange.is_there)

    thread = threading.Thread(target=compact)
    thread.start()
    messages = [message(b"%d" % number) for number in range(100)]
    for each in messages:
        exchange.post(each)
    done.set()
    thread.join()
    assert sorted(told(exchange)) == sorted(each.signed.digest for each in messages)


def killed(step: Callable[[], None]) -> None:
    """Do something in a process of its own, which ends by being killed."""
    child = multiprocessing.get_context("fork").Process(target=step)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def kill_before_the_line(monkeypatch: pytest.MonkeyPatch, exchange: JournalledExchange) -> None:
    def post() -> None:
        monkeypatch.setattr(Journal, "append", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        exchange.post(message(b"lost?"))

    killed(post)


def kill_within_the_line(monkeypatch: pytest.MonkeyPatch, exchange: JournalledExchange) -> None:
    write = os.write

    def half(handle: int, content: bytes) -> int:
        write(handle, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def post() -> None:
        monkeypatch.setattr(journal_module.os, "write", half)
        exchange.post(message(b"lost?"))

    killed(post)


@pytest.mark.parametrize("kill", [kill_before_the_line, kill_within_the_line])
def test_who_is_killed_between_a_file_and_its_line_has_lost_nothing(
    exchange, monkeypatch, kill
) -> None:
    exchange.post(message(b"before"))
    position = exchange.entries(Position())[1]
    kill(monkeypatch, exchange)
    assert exchange.path(message(b"lost?").signed).is_file()
    assert told(exchange, position) == []
    exchange.post(message(b"after"))
    assert told(exchange, position) == [message(b"after").signed.digest]
    exchange.recover()
    assert told(exchange, position)[1:] == [message(b"lost?").signed.digest]
    exchange.recover()
    assert len(told(exchange)) == 3


def test_what_is_posted_again_after_a_kill_is_told_without_a_recovery(
    exchange, monkeypatch
) -> None:
    kill_before_the_line(monkeypatch, exchange)
    assert told(exchange) == []
    exchange.post(message(b"lost?"))
    assert told(exchange) == [message(b"lost?").signed.digest]


def test_a_line_that_is_being_written_is_left_for_the_next_time(exchange) -> None:
    exchange.post(message(b"1"))
    position = exchange.entries(Position())[1]
    exchange.post(message(b"2"))
    path = exchange.root / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    found, position = exchange.entries(position)
    assert found == []
    path.write_bytes(whole)
    assert told(exchange, position) == [message(b"2").signed.digest]


def test_what_is_forgotten_is_not_told_of_and_a_reader_of_a_compacted_journal_starts_over(
    exchange, monkeypatch
) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 1)
    for number in range(4):
        exchange.post(message(b"old %d" % number))
    kept = message(b"new", 2)
    exchange.post(kept)
    _, position = exchange.entries(Position())
    exchange.forget(TOPIC.run, 1)
    assert told(exchange) == [kept.signed.digest]
    (entry,), after = exchange.entries(position)
    assert entry.digest == kept.signed.digest
    assert after.epoch != position.epoch
    assert exchange.journal.read_all()[0] == [entry]


def test_a_journal_of_which_most_is_of_use_stays_as_it_is(exchange, monkeypatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_FROM", 1)
    for number in (1, 2, 2):
        exchange.post(message(b"%d" % number, number))
    epoch = exchange.entries(Position())[1].epoch
    exchange.forget(TOPIC.run, 1)
    assert exchange.entries(Position())[1].epoch == epoch


def test_after_a_start_of_the_machine_which_may_have_lost_lines_readers_start_over(
    exchange, monkeypatch
) -> None:
    exchange.post(message(b"1"))
    exchange.post(message(b"2"))
    position = exchange.entries(Position())[1]
    path = exchange.root / JOURNAL
    path.write_bytes(path.read_bytes()[:-200])
    monkeypatch.setattr(journal_module, "_boot", lambda: "another")
    exchange.recover()
    exchange.post(message(b"3"))
    found = {message(body).signed.digest for body in (b"1", b"2", b"3")}
    assert set(told(exchange, position)) == found


def test_files_that_are_no_messages_in_their_place_are_not_told_of(exchange) -> None:
    good = message(b"1")
    exchange.post(good)
    path = exchange.path(good.signed)
    (path.parent / f"{'a' * 32}.message").write_bytes(path.read_bytes())
    (path.parent / f"{'b' * 32}.message").write_bytes(b"no message")
    (path.parent / f"{'c' * 32}.message").symlink_to(path)
    exchange.recover()
    assert told(exchange) == [good.signed.digest]


def test_a_run_cannot_have_the_name_of_the_journal(exchange) -> None:
    topic = Topic(TOPIC.consortium, JOURNAL, 1)
    with pytest.raises(ConsiliumError, match="cannot be a run's id"):
        exchange.post(sign(ME, topic, "payload", COORDINATOR, b"1"))
