"""A client of a Dask cluster that nobody can reach who should not run code at the sites."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from federated.configuration.dask_access import REMEDY, RISK, is_encrypted, is_loopback
from federated.errors import ConsiliumError
from federated.settings.sections import Dask

# How long a scheduler may take to answer.
LONGEST_S = 10


@contextmanager
def dask_client(runner: Dask) -> Iterator[Any]:
    """A client of a running cluster, whose workers have one torch thread each.

    Whoever holds a certificate of ``runner.ca_file`` can run code at the workers, as the run does.

    Raises:
        ConsiliumError: Dask is not installed, a file of TLS cannot be used, no scheduler answers,
            or the cluster can be reached without TLS from other machines.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConsiliumError(
            "runner.name=dask needs the extra: install consilium[dask]."
        ) from error
    security = _security(runner)
    try:
        client = Client(runner.address, timeout=LONGEST_S, security=security)
    except (OSError, TimeoutError) as error:
        raise ConsiliumError(
            f"No Dask scheduler answers at runner.address={runner.address}, or not to this "
            f"certificate ({str(error).splitlines()[0] if str(error) else type(error).__name__}). "
            "Start one with `dask scheduler`, and `dask worker ADDRESS` for each worker, with "
            "their --tls-ca-file, --tls-cert and --tls-key, or correct the address."
        ) from error
    with client:
        _refuse_open(client, runner)
        client.run(torch.set_num_threads, 1)
        yield client


def _security(runner: Dask) -> Any:
    """The certificates of a run, or ``None`` for a cluster of this machine.

    Raises:
        ConsiliumError: a file cannot be read, or others can read the key.
    """
    from distributed.security import Security

    if not is_encrypted(runner.address):
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
    encrypted = is_encrypted(runner.address)
    allowed = is_encrypted if encrypted else is_loopback
    for address in addresses:
        if not allowed(address):
            raise ConsiliumError(
                f"The Dask cluster at runner.address={runner.address} listens at {address}, "
                f"without TLS and for other machines too, and {RISK}. {REMEDY}"
            )
