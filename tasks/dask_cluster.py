"""A client of a Dask cluster that nobody can reach who should not run code at the sites."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from federated.configuration.dask_access import REMEDY, RISK, is_encrypted, is_loopback
from federated.errors import ConsiliumError
from federated.settings.sections import Dask

# How long a scheduler may take to answer.
LONGEST_S = 10
# What workers with a GPU offer: `dask worker --resources GPU=1`.
GPU = "GPU"
# The stages that use a GPU where there is one.
OF_A_GPU = frozenset(("train_site", "evaluate_site", "draw_site", "evaluate_at_end", "sum_at_end"))


class DaskPool(Executor):
    """The workers of a cluster; stages that use a GPU go to those that offer one, if any does."""

    def __init__(self, client: Any) -> None:
        self._all = client.get_executor()
        offered = [
            worker
            for worker in client.scheduler_info(n_workers=-1)["workers"].values()
            if worker["resources"].get(GPU, 0) >= 1
        ]
        self._with_gpu = client.get_executor(resources={GPU: 1}) if offered else self._all

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Begin a stage, or several: ``fn`` is what calls it, with it as its first argument."""
        given = args[0] if args else ()
        stages = given if isinstance(given, tuple) else (given,)
        of_a_gpu = any(getattr(stage, "__name__", "") in OF_A_GPU for stage in stages)
        pool = self._with_gpu if of_a_gpu else self._all
        future: Future[Any] = pool.submit(fn, *args, **kwargs)
        return future


@contextmanager
def dask_client(runner: Dask, workers: int) -> Iterator[Any]:
    """A client of a cluster, whose workers have one torch thread and at most one GPU each.

    Whoever holds a certificate of ``runner.ca_file`` can run code at the workers, as the run does.
    Without an address it is a cluster of this process, at loopback addresses, under TLS with
    certificates that are made for it and never written: nobody else can reach it.

    Args:
        runner: where the cluster is.
        workers: how many processes one that is made here has.

    Raises:
        ConsiliumError: Dask is not installed, a file of TLS cannot be used, no scheduler answers,
            or the cluster can be reached without TLS from other machines.
    """
    try:
        import distributed
    except ImportError as error:
        raise ConsiliumError(
            "runner.name=dask needs the extra: install consilium[dask]."
        ) from error
    with ExitStack() as stack:
        if runner.address is None:
            client = stack.enter_context(_local(distributed, workers, stack))
        else:
            client = stack.enter_context(_connected(distributed, runner))
            _refuse_open(client, runner)
        client.run(torch.set_num_threads, 1)
        _number_workers(client)
        yield client


def _local(distributed: Any, workers: int, stack: ExitStack) -> Any:
    """A client of a cluster of this process."""
    gpus = torch.cuda.device_count()
    security = distributed.security.Security.temporary()
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="consilium-dask-"))
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        host="127.0.0.1",
        protocol="tls://",
        security=security,
        dashboard_address=None,
        local_directory=folder,
        resources={GPU: 1} if gpus else None,
    )
    stack.enter_context(cluster)
    return distributed.Client(cluster, security=security)


def _number_workers(client: Any) -> None:
    """Tell the workers of each machine apart, so that each takes a GPU of its own."""
    of_host: defaultdict[str, list[str]] = defaultdict(list)
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        of_host[worker["host"]].append(address)
    for addresses in of_host.values():
        for number, address in enumerate(sorted(addresses)):
            client.run(_be_number, number, workers=[address])


def _be_number(number: int) -> None:
    os.environ["CONSILIUM_WORKER"] = str(number)


def _connected(distributed: Any, runner: Dask) -> Any:
    security = _security(runner)
    try:
        return distributed.Client(runner.address, timeout=LONGEST_S, security=security)
    except (OSError, TimeoutError) as error:
        raise ConsiliumError(
            f"No Dask scheduler answers at runner.address={runner.address}, or not to this "
            f"certificate ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Start one with `dask scheduler`, and `dask worker ADDRESS` for each worker, with "
            "their --tls-ca-file, --tls-cert and --tls-key, or correct the address."
        ) from error


def _security(runner: Dask) -> Any:
    """The certificates of a run, or ``None`` for a cluster of this machine.

    Raises:
        ConsiliumError: a file cannot be read, or others can read the key.
    """
    from distributed.security import Security

    if runner.address is None or not is_encrypted(runner.address):
        return None
    for name in ("ca_file", "cert_file", "key_file"):
        path = getattr(runner, name)
        try:
            path.read_bytes()
        except OSError as error:
            raise ConsiliumError(
                f"runner.{name}={path} cannot be read ({error.strerror}). Give the PEM file that "
                "belongs there, or make it readable."
            ) from error
    if runner.key_file and (mode := runner.key_file.stat().st_mode & 0o777) & 0o077:
        raise ConsiliumError(
            f"The key runner.key_file={runner.key_file} has permissions {mode:03o}, so others may "
            "have read it, and could run code at the sites. Make a new key and certificate, and "
            "give the key the permissions 600."
        )
    return Security(
        require_encryption=True,
        tls_ca_file=str(runner.ca_file),
        tls_client_cert=str(runner.cert_file),
        tls_client_key=str(runner.key_file),
    )


def _refuse_open(client: Any, runner: Dask) -> None:
    """Refuse a cluster of which other machines can reach a part without TLS.

    A scheduler that listens everywhere answers at the loopback address as well.

    Raises:
        ConsiliumError: there is such a part.
    """
    cluster = client.scheduler_info(n_workers=-1)
    addresses = [cluster["address"], *cluster["workers"]]
    encrypted = runner.address is not None and is_encrypted(runner.address)
    allowed = is_encrypted if encrypted else is_loopback
    for address in addresses:
        if not allowed(address):
            raise ConsiliumError(
                f"The Dask cluster at runner.address={runner.address} listens at {address}, "
                f"without TLS and for other machines too, and {RISK}. {REMEDY}"
            )
