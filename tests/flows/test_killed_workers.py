"""A worker process that is killed ends the run with a word, and a resumed one has the same weights.

The pool is that of runs: processes, of which one gets SIGKILL within a stage of a site in round 2.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import pytest

import tasks.pool
from federated.errors import ConsiliumError
from tasks.pool import submit_in_order, submit_reported, submit_stage, submit_together
from tests.flows.conftest import weights
from tests.flows.killing import DOOMED, alone, and_report, in_order

pytestmark = pytest.mark.usefixtures("plainly")

PROCESSES = ["compression.bits=8", "runner.name=processes", "runner.workers=2"]


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
