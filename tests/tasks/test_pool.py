import os
import signal
from pathlib import Path

import pytest

from federated.config import resolve
from federated.errors import ConsiliumError
from tasks.pool import open_pool, run_stage, worker_count
from tests.conftest import TINY_PARAMS


def experiment(**runner: object):
    return resolve("tiny", TINY_PARAMS["defaults"] | {"runner": runner}, "")


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def threads(*_: object) -> int:
    import torch

    return torch.get_num_threads()


def test_a_worker_has_one_torch_thread():
    with open_pool(experiment(name="processes", workers=1)) as pool:
        assert run_stage(pool, threads) == 1
    with open_pool(experiment(name="serial")) as pool:
        assert run_stage(pool, threads) == 1


def test_a_worker_that_dies_is_explained():
    with (
        open_pool(experiment(name="processes", workers=1)) as pool,
        pytest.raises(ConsiliumError, match=r"worker process died.*consilium resume"),
    ):
        run_stage(pool, die, Path(), "site-00", 1)


def test_there_are_never_more_workers_than_sites():
    auto = experiment(name="processes", workers="auto")
    one_site = auto.model_copy(update={"sites": auto.sites.model_copy(update={"count": 1})})
    assert 1 <= worker_count(auto) <= 3
    assert worker_count(one_site) == 1
    assert worker_count(experiment(name="processes", workers=5)) == 5
    assert worker_count(experiment(name="serial")) == 1


def test_a_dask_scheduler_that_does_not_answer_is_named():
    pytest.importorskip("distributed")
    unreachable = experiment(name="dask", address="tcp://127.0.0.1:9")
    with (
        pytest.raises(ConsiliumError, match="No Dask scheduler answers at"),
        open_pool(unreachable),
    ):
        pass
