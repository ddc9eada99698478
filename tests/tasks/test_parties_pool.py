"""What the coordinator makes of sites that do not say, or say falsely, what they have done."""

from dataclasses import replace

import pytest

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.folder import FolderExchange
from federated.exchange.message import Topic, sign
from federated.settings.sections import Parties
from federated.stages.asked import answer
from federated.stages.asking import Ask
from tasks.parties_pool import LateError, PartiesPool, PartyCall
from tests.federated.staged_run import begin, small_experiment, small_images

SITE = "site-00"


@pytest.fixture
def run(tmp_path):
    return begin(small_experiment(small_images(tmp_path)), tmp_path / "runs")


@pytest.fixture
def pool(tmp_path):
    made = PartiesPool(Parties(deadline=0.2), tmp_path / "seen")
    yield made
    made.shutdown()


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
