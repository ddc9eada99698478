"""A worker process that is killed ends the run with a word, and a resumed one has the same weights.

The pool is that of runs: processes, of which one gets SIGKILL within a stage of a site in round 2.
"""

import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial, wraps

import numpy as np
import pytest

import tasks.pool
from federated.errors import ConsiliumError
from federated.stages.worker import run_alone, run_and_report, run_in_order
from tasks.pool import submit_in_order, submit_reported, submit_stage, submit_together
from tests.flows.conftest import weights

pytestmark = pytest.mark.usefixtures("plainly")

# Which stage of which site is killed, before it begins or once it is done and nobody was told.
DOOMED = "CONSILIUM_TEST_DOOMED"
PROCESSES = ["compression.bits=8", "runner.name=processes", "runner.workers=2"]


def doomed(stage):
    name, site, moment = os.environ[DOOMED].split() if DOOMED in os.environ else ("", "", "")

    @wraps(stage)
    def run(call, *arguments):
        mark = call.home / "killed"
        hit = (stage.__name__, call.site) == (name, site) and arguments[:1] == (2,)
        if hit and not mark.exists():
            mark.touch()
            if moment == "done":
                stage(call, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return stage(call, *arguments)

    return run


# The entries of a worker, by name: a pool hands them on by reference.
def alone(stage, call, *arguments):
    return run_alone(doomed(stage), call, *arguments)


def and_report(stage, call, *arguments):
    return run_and_report(doomed(stage), call, *arguments)


def in_order(stages, call, *arguments):
    return run_in_order(tuple(doomed(stage) for stage in stages), call, *arguments)


@pytest.fixture
def killing(monkeypatch):
    for name, entry in (
        ("run_alone", alone),
        ("run_and_report", and_report),
        ("run_in_order", in_order),
    ):
        monkeypatch.setattr(tasks.pool, name, entry)
    return partial(monkeypatch.setenv, DOOMED), partial(monkeypatch.delenv, DOOMED)


# Each takes seconds: the processes are real ones, twice.
KILLED = [
    ("plain", "train_site site-01 begun"),
    ("secagg_plus", "answer_site site-01 done"),
    ("rlwe_secagg", "protect_site site-01 done"),
    ("packed_bfv", "decrypt_site site-00 done"),
]


@pytest.mark.parametrize(("protection", "where"), KILLED)
def test_a_resumed_run_has_the_weights_of_one_that_nobody_killed(
    run, known, killing, protection, where
):
    kill, let_live = killing
    hidden = [*PROCESSES, f"protection.name={protection}"]
    kill(where)
    with pytest.raises(ConsiliumError, match="A worker process died") as told:
        run(rounds=3, overrides=hidden)
    let_live()
    assert "consilium resume" in str(told.value)
    resumed = run(resume="latest")
    assert [record["dropped"] for record in resumed.records()] == [{}, {}, {}]
    np.testing.assert_array_equal(weights(resumed), weights(known(3, PROCESSES[0])))


def test_where_sites_may_drop_out_none_does_since_a_worker_died(run, known, killing):
    """Those that were done before would be the round, and the run would go on from their sum."""
    kill, let_live = killing
    settings = ["runner.name=processes", "runner.workers=1", "sites.on_dropout=continue"]
    kill("train_site site-01 begun")
    with pytest.raises(ConsiliumError, match="A worker process died"):
        run(rounds=2, overrides=settings)
    let_live()
    resumed = run(resume="latest")
    assert [record["sites"] for record in resumed.records()] == [resumed.sites()] * 2
    np.testing.assert_array_equal(weights(resumed), weights(known(2)))


@pytest.mark.parametrize("begin", [submit_stage, submit_reported, submit_in_order, submit_together])
def test_that_a_worker_has_died_is_told_as_the_next_stage_is_begun_too(begin):
    pool = ProcessPoolExecutor(1)
    with pytest.raises(BrokenProcessPool):
        pool.submit(os._exit, 1).result()
    with pytest.raises(ConsiliumError, match="A worker process died"):
        begin(pool, [], [], 1)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("where", ["train_site site-01 begun", "evaluate_site site-01 done"])
def test_so_has_one_whose_rounds_are_evaluated_beside_the_next(run, known, killing, where):
    """By Prefect, so that stages of two rounds are under way at once."""
    kill, let_live = killing
    kill(where)
    with pytest.raises(ConsiliumError, match="A worker process died"):
        run(rounds=3, overrides=PROCESSES[1:])
    let_live()
    resumed = run(resume="latest")
    assert [record["sites"] for record in resumed.records()] == [resumed.sites()] * 3
    assert not any(record["not_evaluated"] for record in resumed.records())
    np.testing.assert_array_equal(weights(resumed), weights(known(3)))
