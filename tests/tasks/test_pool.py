import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from federated.configuration.load import resolve
from federated.errors import ConsiliumError
from federated.stages.site import SiteCall
from tasks.dask_cluster import DaskPool
from tasks.pool import open_pool, run_stage, submit_stage, worker_count
from tests.conftest import TINY_PARAMS


def experiment(**runner: object):
    return resolve("tiny", TINY_PARAMS["defaults"] | {"runner": runner}, "")


CALL = SiteCall(Path("site-00"), Path("exchange"), "a-run", 1)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def threads(*_: object) -> int:
    import torch

    return torch.get_num_threads()


def test_a_worker_has_one_torch_thread():
    with open_pool(experiment(name="processes", workers=1)) as pool:
        assert pool.submit(threads).result() == 1
    with open_pool(experiment(name="serial")) as pool:
        assert pool.submit(threads).result() == 1


def test_what_a_stage_gives_stays_in_its_worker():
    """What a site tells passes in messages; a scheduler learns that the stage is done."""
    with open_pool(experiment(name="serial")) as pool:
        assert run_stage(pool, threads, CALL) is None
        assert submit_stage(pool, threads, CALL).result() is None


def test_a_worker_that_dies_is_explained():
    with (
        open_pool(experiment(name="processes", workers=1)) as pool,
        pytest.raises(ConsiliumError, match=r"worker process died.*consilium resume"),
    ):
        run_stage(pool, die, CALL)


def test_there_are_never_more_workers_than_sites():
    auto = experiment(name="processes", workers="auto")
    one_site = auto.model_copy(update={"sites": auto.sites.model_copy(update={"count": 1})})
    assert 1 <= worker_count(auto) <= 3
    assert worker_count(one_site) == 1
    assert worker_count(experiment(name="processes", workers=5)) == 5
    assert worker_count(experiment(name="serial")) == 1


def test_a_dask_scheduler_that_does_not_answer_is_named(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("tasks.dask_cluster.LONGEST_S", 1)
    unreachable = experiment(name="dask", address="tcp://127.0.0.1:9")
    with (
        pytest.raises(ConsiliumError, match="No Dask scheduler answers at"),
        open_pool(unreachable),
    ):
        pass


FILES = ("ca_file", "cert_file", "key_file")


@contextmanager
def cluster(host: str = "127.0.0.1", **options: Any) -> Iterator[str]:
    """The address of a Dask cluster of one worker."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", host=host, **options
    ) as started:
        yield started.scheduler_address


def certificates(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A cluster's own security, and files with which a run is let in."""
    security = pytest.importorskip("distributed.security").Security.temporary()
    folder.mkdir()
    pems = (security.tls_ca_file, security.tls_client_cert, security.tls_client_key)
    files = {}
    for name, pem in zip(FILES, pems, strict=True):
        path = folder / f"{name}.pem"
        path.write_text(pem)
        path.chmod(0o600)
        files[name] = str(path)
    return {"protocol": "tls://", "security": security}, files


def test_under_tls_a_run_is_let_in_by_its_certificate_alone(tmp_path):
    options, files = certificates(tmp_path / "ours")
    _, others = certificates(tmp_path / "others")
    with cluster(**options) as address:
        with open_pool(experiment(name="dask", address=address, **files)) as pool:
            assert pool.submit(threads).result() == 1
        for unknown in (
            experiment(name="dask", address=address, **others),
            experiment(name="dask", address=address.replace("tls", "tcp")),
        ):
            said = "No Dask scheduler answers at .* or not to this certificate"
            with pytest.raises(ConsiliumError, match=said), open_pool(unknown):
                pass


def test_without_an_address_the_run_makes_a_cluster_that_nobody_else_reaches():
    distributed = pytest.importorskip("distributed")
    with open_pool(experiment(name="dask", workers=1)) as pool:
        assert pool.submit(threads).result() == 1
        address = pool.submit(worker_address).result()
        assert address.startswith("tls://127.0.0.1:")
        others = distributed.security.Security.temporary()
        with pytest.raises((OSError, TimeoutError)):
            distributed.Client(address, timeout=1, security=others)


def worker_address(*_: object) -> str:
    from distributed import get_worker

    return get_worker().scheduler.address


class RecordingClient:
    """As much of a client as a pool asks, of a cluster with these workers' resources."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.workers = {str(n): {"resources": each} for n, each in enumerate(resources)}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": self.workers}

    def get_executor(self, **options: Any) -> Any:
        class Recording:
            def submit(self, *_: object) -> dict[str, Any]:
                return options

        return Recording()


def train_site(*_: object) -> None:
    """Named as the stage is."""


def test_stages_of_a_gpu_go_to_workers_that_offer_one_where_any_does():
    with_gpu = DaskPool(RecordingClient({}, {"GPU": 1}))
    assert with_gpu.submit(threads, train_site, CALL) == {"resources": {"GPU": 1}}
    assert with_gpu.submit(threads, (train_site, die), CALL) == {"resources": {"GPU": 1}}
    assert with_gpu.submit(threads, die, CALL) == {}
    assert with_gpu.submit(threads, (die, die), CALL) == {}
    assert with_gpu.submit(threads) == {}
    without = DaskPool(RecordingClient({}, {"MEMORY": 1}))
    assert without.submit(threads, train_site, CALL) == {}


def test_a_scheduler_that_other_machines_reach_without_tls_is_refused():
    """Though it is asked for by the loopback address, where it answers too."""
    with cluster(host="0.0.0.0") as address:
        port = address.rsplit(":", 1)[1]
        said = "for other machines too, and whoever reaches a Dask scheduler runs code"
        everywhere = experiment(name="dask", address=f"tcp://127.0.0.1:{port}")
        with pytest.raises(ConsiliumError, match=said), open_pool(everywhere):
            pass


def test_a_key_that_others_may_read_and_a_missing_file_are_refused(tmp_path):
    _, files = certificates(tmp_path / "ours")
    secured = experiment(name="dask", address="tls://127.0.0.1:9", **files)
    Path(files["key_file"]).chmod(0o640)
    with pytest.raises(ConsiliumError, match="has permissions 640"), open_pool(secured):
        pass
    Path(files["ca_file"]).unlink()
    said = r"runner.ca_file=.* cannot be read"
    with pytest.raises(ConsiliumError, match=said), open_pool(secured):
        pass
