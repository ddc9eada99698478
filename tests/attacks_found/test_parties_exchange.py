"""Whoever can write to the exchange, and is no party, ends nothing and has nothing removed."""

import os
import signal
from pathlib import Path

import pytest

from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.stages.aggregate import add_payloads
from tests.federated.staged_run import Staged, begin, small_experiment, small_images, train_round

SITE = "site-00"
THREE = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}


@pytest.fixture
def run(tmp_path: Path) -> Staged:
    return begin(small_experiment(small_images(tmp_path), **THREE), tmp_path / "runs")


def place_of(run: Staged, topic) -> Path:
    place = Place(topic.run, topic.round, topic.attempt, COORDINATOR, kinds.PAYLOAD, SITE)
    return run.coordinator.mailbox.exchange.folder(place)


def loop(folder: Path) -> None:
    (folder / "0.message").symlink_to("0.message")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "0.message")


def subfolder(folder: Path) -> None:
    (folder / "0.message").mkdir()


def junk(folder: Path) -> None:
    for number in range(50):
        (folder / f"{number:032d}.message").write_bytes(b"CONSIL\x00\x01" + bytes(number))


@pytest.mark.parametrize("what", [loop, pipe, subfolder, junk])
def test_what_lies_beside_a_message_does_not_hide_it(run: Staged, what) -> None:
    topic = train_round(run, 1)
    what(place_of(run, topic))
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites


def test_a_pipe_that_takes_a_messages_place_after_the_look_does_not_hold_anybody(
    run: Staged, monkeypatch
) -> None:
    topic = train_round(run, 1)
    folder = place_of(run, topic)
    os.mkfifo(folder / "0.message")
    found = [folder / "0.message", *run.coordinator.mailbox.exchange.find(
        Place(topic.run, 1, topic.attempt, COORDINATOR, kinds.PAYLOAD, SITE))]  # fmt: skip
    exchange = type(run.coordinator.mailbox.exchange)
    first = exchange.find
    monkeypatch.setattr(
        exchange,
        "find",
        lambda self, place: found if place.sender == SITE else first(self, place),
    )

    def too_long(*_: object) -> None:
        raise TimeoutError("the pipe holds the coordinator")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    try:
        assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites
    finally:
        signal.alarm(0)


def test_a_file_in_a_places_place_hides_that_sender_and_ends_nothing(run: Staged) -> None:
    topic = train_round(run, 1)
    folder = place_of(run, topic)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_bytes(b"")
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites[1:]


def test_thousands_of_files_hide_no_message(run: Staged) -> None:
    topic = train_round(run, 1)
    for number in range(2000):
        (place_of(run, topic) / f"{number:032d}.message").write_bytes(b"")
    assert add_payloads(run.coordinator, topic, run.sites).responded == run.sites


def test_forgetting_a_round_follows_no_link_out_of_the_exchange(run: Staged) -> None:
    topic = train_round(run, 1)
    exchange = run.coordinator.mailbox.exchange
    (exchange._round(topic.run, 1) / "attempt-99").symlink_to(run.folder.root)
    home = run.home(SITE).root
    exchange.forget(topic.run, 1, keep=(kinds.STATE,))
    assert (home / "identity.key").is_file()
