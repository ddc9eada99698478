"""A stage whose worker died is done again only as far as nothing is entered in a ledger twice."""

import logging
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import pytest

from federated.errors import ConsiliumError
from federated.run.update_files import read_state, write_state
from federated.site.holder import holder_ledger
from federated.stages import evaluate, local_train
from federated.stages.asking import Ask
from federated.stages.coordinator import ask_evaluation, begin_round, publish_state
from flows import site_flow
from flows.site_flow import Desk, do_stage
from tests.federated.federation import SITE, begin, entries, sent
from tests.federated.staged_run import forget_processes, leave_model, record

pytestmark = pytest.mark.usefixtures("project", "plainly")
PRIVATE = ("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")


@pytest.fixture(autouse=True)
def outside_of_a_flow(monkeypatch):
    monkeypatch.setattr(site_flow, "get_run_logger", logging.getLogger)


class DeathError(BaseException):
    """What no stage can catch, as nothing catches the death of a process."""


class Dying(Executor):
    """Its first worker dies in what is patched to call :meth:`die`; the next ones live."""

    def __init__(self):
        self.begun = 0

    def submit(self, entry, /, *arguments):
        self.begun += 1
        done = Future()
        try:
            done.set_result(entry(*arguments))
        except ConsiliumError as error:
            done.set_exception(error)
        except DeathError:
            done.set_exception(BrokenProcessPool())
        return done

    def die(self, function):
        def or_die(*arguments, **named):
            if self.begun == 1:
                raise DeathError
            return function(*arguments, **named)

        return or_die


def asked_of(run, pool, stage):
    """Ask a site for a stage of round 1, in a process that has not seen the run before."""
    forget_processes()
    call = run.call(SITE)
    desk = Desk(run.home(SITE), call.home, None, call.exchange, lambda: pool, *[None] * 5)
    do_stage(desk, Ask(call.run, call.attempt, 1, 1, stage, (1,), "digest"))


def evaluations(run):
    spendings = holder_ledger(run.experiment).spendings(run.folder.run_id)
    return sum(not entry.trains for entry in spendings)


def test_what_is_stored_is_sent_by_another_worker(monkeypatch):
    run, pool = begin(*PRIVATE), Dying()
    begin_round(run.coordinator, 1)
    monkeypatch.setattr(local_train, "write_packed", pool.die(local_train.write_packed))
    asked_of(run, pool, "train_site")
    assert (pool.begun, entries(run)) == (2, 1)
    assert run.store(SITE).work_path(1, "update").is_file()


def test_a_stored_release_of_other_sources_makes_no_second_entry(monkeypatch):
    """That of the attempt before, from another state, which has the name of this one's."""
    run, pool = begin(*PRIVATE), Dying()
    sent(run)
    state = read_state(run.folder.state_path(0))
    write_state(run.folder.state_path(0), replace(state, weights=state.weights * 2))
    run.resume()
    begin_round(run.coordinator, 1)
    monkeypatch.setattr(local_train, "train_round", pool.die(local_train.train_round))
    with pytest.raises(ConsiliumError, match=f"The worker of {SITE} died in train_site"):
        asked_of(run, pool, "train_site")
    assert (pool.begun, entries(run)) == (2, 2)


def test_what_a_stage_without_a_release_enters_is_entered_once(monkeypatch):
    """The round's update is stored; the evaluation after it is entered, and then no more comes."""
    run, pool = begin(*PRIVATE, "selection.keep=best"), Dying()
    sent(run)
    leave_model(run, 1)
    record(run, 1, [SITE])
    publish_state(run.coordinator, 1)
    ask_evaluation(run.coordinator, 1, [SITE])
    before = evaluations(run)
    monkeypatch.setattr(evaluate, "pack_shared", pool.die(evaluate.pack_shared))
    with pytest.raises(ConsiliumError, match=f"The worker of {SITE} died in evaluate_site"):
        asked_of(run, pool, "evaluate_site")
    assert (pool.begun, evaluations(run)) == (2, before + 1)
