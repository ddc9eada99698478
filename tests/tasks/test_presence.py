"""How long sites of a consortium are waited for, whatever they do."""

import os
import time

import pytest

from federated.files import write_json
from federated.settings.sections import Parties
from tasks.parties_pool import Presence

SITE = "clinic"


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test sets forward."""
    now = [time.time()]
    monkeypatch.setattr("tasks.parties_pool.time.time", lambda: now[0])
    return now


@pytest.fixture
def presence(tmp_path, clock):
    return Presence(tmp_path, Parties(deadline=1000, patience=2, silence=10**6))


def hello(tmp_path, at):
    path = tmp_path / f"{SITE}.json"
    write_json(path, {}, 0o600)
    os.utime(path, (at, at))


def test_a_site_that_was_late_is_asked_again_once_it_says_hello(presence, tmp_path, clock):
    hello(tmp_path, clock[0] - 5)
    presence.late(SITE, 1)
    assert presence.away(SITE) is None
    presence.late(SITE, 2)
    assert "late in 2 rounds, and has not said hello since" in str(presence.away(SITE))
    hello(tmp_path, clock[0] + 1)
    assert presence.away(SITE) is None


def rounds_waited_for(presence, tmp_path, clock, rounds, trains):
    """In how many of some rounds of 1000 s a site is waited for that says hello all the time."""
    waited = 0
    for number in range(1, rounds + 1):
        hello(tmp_path, clock[0])
        if presence.away(SITE) is None:
            waited += 1
            if trains:
                presence.in_time(SITE, number)
            clock[0] += 1000
            presence.late(SITE, number)
        else:
            clock[0] += 10
        hello(tmp_path, clock[0])
        clock[0] += 1
    return waited


@pytest.mark.parametrize("trains", [False, True])
def test_who_says_hello_and_leaves_out_the_rest_holds_up_few_rounds(
    presence, tmp_path, clock, trains
):
    assert rounds_waited_for(presence, tmp_path, clock, 2000, trains) <= 12


def test_good_rounds_in_succession_make_up_for_late_ones(presence, tmp_path, clock):
    hello(tmp_path, clock[0])
    for late in (1, 5, 9):
        presence.late(SITE, late)
        for good in (1, 2, 3):
            presence.in_time(SITE, late + good)
        assert presence.away(SITE) is None


def test_who_is_late_in_every_second_round_is_left_behind_and_holds_up_few(
    presence, tmp_path, clock
):
    """A round is held up for 1000 s; from time to time the site does all that it is asked."""
    late = 0
    for number in range(1, 2001):
        hello(tmp_path, clock[0])
        if presence.away(SITE) is None:
            presence.in_time(SITE, number)
            if number % 2:
                late += 1
                clock[0] += 1000
                presence.late(SITE, number)
        else:
            clock[0] += 10
        hello(tmp_path, clock[0])
        clock[0] += 1
    assert late <= 12
