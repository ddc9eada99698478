"""What the coordinator makes of sites that do not say, or say falsely, what they have done."""

import time
from contextlib import ExitStack
from dataclasses import replace

import pytest

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.folder import FolderExchange
from federated.exchange.message import Topic, sign
from federated.settings.sections import Parties
from federated.stages.asked import answer
from federated.stages.asking import FOLLOWING, Ask, read_ask
from tasks.parties_pool import LateError, PartiesPool, PartyCall
from tests.federated.staged_run import begin, small_experiment, small_images

SITE = "site-00"


@pytest.fixture
def run(tmp_path):
    return begin(small_experiment(small_images(tmp_path)), tmp_path / "runs")


@pytest.fixture
def new_pool(tmp_path):
    """Makes pools, which wait for nobody any more once the test has ended."""
    with ExitStack() as stack:

        def make(**settings):
            made = PartiesPool(Parties(**settings), tmp_path / "seen")
            stack.callback(made.shutdown)
            return made

        yield make


@pytest.fixture
def pool(new_pool):
    return new_pool(deadline=0.2)


def exchange_of(run):
    return FolderExchange(run.folder.exchange_path)


def expected(run, digest=""):
    """What the first thing that a site is asked is, for a site that answers before it is asked."""
    start = run.coordinator.start
    return Ask(start.run, start.attempt, 1, 1, "train_site", (1,), digest)


def test_a_site_that_never_answers_is_left_behind_at_the_deadline(run, pool):
    with pytest.raises(LateError, match=r"train_site, within 0.2 seconds, and is left behind"):
        pool.submit(None, "train_site", PartyCall(run.coordinator, SITE), 1).result()


def test_a_word_that_was_there_before_it_was_asked_is_none(run, pool):
    answer(run.home(SITE), exchange_of(run), expected(run, "0" * 64))
    with pytest.raises(RefusalError, match="is none"):
        pool.submit(None, "train_site", PartyCall(run.coordinator, SITE), 1).result()


def test_nobody_says_anything_for_another_site(run, pool):
    """A file that another site has signed lies where this site's word is to lie."""
    start = run.coordinator.start
    topic = Topic(start.consortium, start.run, start.attempt, 1)
    body = b'{"ask": "", "error": null}'
    other = sign(run.home("site-01").identity(), topic, f"{kinds.DONE}1", "coordinator", body)
    mine = replace(other.signed, header=replace(other.header, sender=SITE))
    exchange_of(run).post(replace(other, signed=mine))
    with pytest.raises(RefusalError, match="not signed by site-00"):
        pool.submit(None, "train_site", PartyCall(run.coordinator, SITE), 1).result()


def asks_of(run, site=SITE):
    """The stages that a site was asked for, by number."""
    found = run.folder.exchange_path.glob(f"*/round-*/attempt-*/{site}/{kinds.ASK}*/*/*.message")
    asks = [read_ask(run.home(site), path) for path in found]
    return {asked.number: asked for asked in asks}


def test_a_site_is_asked_at_once_for_what_follows_on_training(run, new_pool):
    pool = new_pool(deadline=30)
    call, stages = PartyCall(run.coordinator, SITE), ("train_site", *FOLLOWING["train_site"])
    trained = pool.submit(None, "train_site", call, 1)
    # All of them, before the site has said anything.
    until = time.monotonic() + 10
    while len(asks_of(run)) < len(stages) and time.monotonic() < until:
        time.sleep(0.005)
    asks = asks_of(run)
    assert [asks[number].stage for number in (1, 2, 3)] == list(stages)
    assert {asked.arguments for asked in asks.values()} == {(1,)}
    # Each has a word of its own, for which the task of that stage waits.
    answer(run.home(SITE), exchange_of(run), asks[1])
    trained.result(10)
    compressed = pool.submit(None, "compress_site", call, 1)
    assert not compressed.done()
    answer(run.home(SITE), exchange_of(run), asks[2])
    compressed.result(10)
    answer(run.home(SITE), exchange_of(run), asks[3], "it has no power")
    with pytest.raises(RefusalError, match="it has no power"):
        pool.submit(None, "protect_site", call, 1).result(10)
    assert asks_of(run) == asks


def test_what_was_asked_along_in_a_round_that_broke_off_is_asked_anew_in_the_next(run, tmp_path):
    pool = PartiesPool(Parties(deadline=0.1, patience=9), tmp_path / "seen")
    call = PartyCall(run.coordinator, SITE)
    for number in (1, 2):
        with pytest.raises(LateError):
            pool.submit(None, "train_site", call, number).result()
    # Of the first round something is asked that nobody had submitted.
    with pytest.raises(LateError):
        pool.submit(None, "compress_site", call, 1).result()
    rounds = [(asked.stage, asked.round) for _, asked in sorted(asks_of(run).items())]
    assert rounds == [
        *(
            (stage, number)
            for number in (1, 2)
            for stage in ("train_site", *FOLLOWING["train_site"])
        ),
        ("compress_site", 1),
    ]
