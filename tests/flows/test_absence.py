"""Rounds of a consortium in which nobody did anything."""

from types import SimpleNamespace

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run.update_files import read_state
from federated.settings.sections import Parties
from flows import absence as module
from flows import round as flow_round
from flows import site_stages
from flows.absence import Absence, nobody_was_there
from flows.site_stages import wait_for
from tasks.parties_pool import LateError
from tests.flows.conftest import full_run
from tests.flows.test_consortium import SITES, say_hello

NAMES = ["site-00", "site-01", "site-02"]
NOBODY = {"round": 1, "lost": "nobody", "dropped": dict.fromkeys(NAMES, "is away")}
GOOD = {"round": 2, "lost": None, "dropped": {}}


class Away:
    """What a stage comes to at a site that is not there."""

    def result(self):
        raise LateError("it has not said hello for 130 seconds")


def run_by(runner):
    sites = SimpleNamespace(on_dropout="continue")
    experiment = SimpleNamespace(name="e", sites=sites, runner=runner)
    return SimpleNamespace(context=SimpleNamespace(run_id="r"), experiment=experiment)


def test_that_all_sites_drop_out_ends_no_stage_of_a_consortium(monkeypatch):
    monkeypatch.setattr(site_stages, "tell", lambda said: None)
    chains = {name: [Away()] for name in NAMES}
    assert set(wait_for(run_by(Parties()), 2, chains).dropped) == set(NAMES)
    with pytest.raises(ConsiliumError, match="All 3 sites have dropped out of round 2"):
        wait_for(run_by(None), 2, chains)


def test_a_round_has_nobody_where_all_selected_dropped_out_of_it():
    assert nobody_was_there(NOBODY, NAMES)
    assert not nobody_was_there(GOOD, NAMES)
    # As where too few were left for the quorum.
    assert not nobody_was_there(NOBODY | {"dropped": {"site-00": "is away"}}, NAMES)


def test_rounds_without_anybody_in_succession_end_the_run():
    absence = Absence(Parties(patience=2), NAMES, lambda site: None)
    for record in (NOBODY, GOOD, NOBODY):
        absence.note(record, NAMES, "tiny r")
    with pytest.raises(ConsiliumError, match=r"in 2 rounds in succession.*resume tiny r$"):
        absence.note(NOBODY, NAMES, "tiny r")


@pytest.mark.parametrize(("comes_at", "looks"), [(3.0, 3), (1000.0, 10)])
def test_after_a_round_without_anybody_a_site_is_waited_for(monkeypatch, comes_at, looks):
    clock = SimpleNamespace(now=0.0, slept=0)

    def sleep(_seconds):
        clock.now += 1
        clock.slept += 1

    monkeypatch.setattr(module, "tell", lambda said: None)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep))

    def away(site):
        return None if site == "site-01" and clock.now >= comes_at else "is away"

    absence = Absence(Parties(deadline=10), NAMES, away)
    absence.wait()
    assert clock.slept == 0
    absence.note(NOBODY, NAMES, "tiny r")
    absence.wait()
    assert clock.slept == looks


@pytest.mark.usefixtures("prefect_server")
def test_a_round_without_any_site_is_lost_and_the_run_goes_on(consortium, monkeypatch):
    parties = consortium()
    real, waits, stayed = flow_round.run_round, [], []

    def all_say_hello(ago=0):
        for name in parties:
            say_hello(name, ago)

    def watched(run, number, began):
        if number == 2:
            all_say_hello(ago=1000)
        before = read_state(run.folder.state_path(number - 1)).weights
        ended = real(run, number, began)
        stayed.append(np.array_equal(before, read_state(run.folder.state_path(number)).weights))
        return ended

    def sleep(_seconds):
        waits.append("slept")
        all_say_hello()

    monkeypatch.setattr(flow_round, "run_round", watched)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    overrides = [SITES, "protection.name=secagg_plus", "compression.bits=8"]
    folder = full_run(rounds=3, overrides=overrides, register_model=False)
    first, second, third = folder.records()
    assert second["lost"]
    assert set(second["dropped"]) == set(second["not_evaluated"]) == set(parties)
    assert second["metrics"] == {}
    assert waits == ["slept"]
    assert first["sites"] == third["sites"] == sorted(parties)
    assert stayed == [False, True, False]


@pytest.mark.usefixtures("prefect_server")
def test_styles_that_nobody_has_told_in_round_1_are_asked_for_again(consortium, monkeypatch):
    parties = consortium()
    real = flow_round.run_round

    def watched(run, number, began):
        for name in parties:
            say_hello(name, 1000 if number == 1 else 0)
        ended = real(run, number, began)
        for name in parties:
            say_hello(name)
        return ended

    monkeypatch.setattr(flow_round, "run_round", watched)
    overrides = [SITES, "strategy.name=resfim", "strategy.rho=0.2"]
    folder = full_run(rounds=3, overrides=overrides, register_model=False)
    first, second, third = folder.records()
    assert first["lost"]
    assert second["sites"] == third["sites"] == sorted(parties)
    assert all(folder.style_path(name).is_file() for name in parties)
    # And of those that have told one no other is asked for.
    asked = [line for name in parties for line in parties[name].home.audit.lines()]
    assert [line["kind"] for line in asked if line["event"] == "sent"].count("style") == 3
