"""Who may reach a Dask cluster: whoever reaches its scheduler runs code at the sites.

Dask sends pickled functions, and its workers run them with the data and keys that the sites' own
stages have. So its addresses have to be either of this machine alone or under TLS, with
certificates of one authority at both ends.
"""

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from federated.settings.sections import Dask

RISK = "whoever reaches a Dask scheduler runs code at the sites"
REMEDY = (
    "Give runner.address=tls://HOST:PORT with runner.ca_file, runner.cert_file and "
    "runner.key_file, or the loopback address of a scheduler that was started with "
    "`dask scheduler --host 127.0.0.1`."
)


def reasons_of_dask(runner: Dask) -> Iterator[str]:
    """The reasons for which the address of a cluster is refused, if there are any."""
    address = f"runner.address={runner.address!r}"
    given = [name for name in ("ca_file", "cert_file", "key_file") if getattr(runner, name)]
    if runner.address is None:
        if given:
            names = " and ".join(f"runner.{name}" for name in given)
            yield (
                f"{names} are for a cluster at runner.address, and none is given: the run makes "
                "one of its own, with certificates of its own. Give the address or leave them out."
            )
        return
    if runner.workers != "auto":
        yield (
            f"runner.workers={runner.workers} is for a cluster that the run makes itself: that at "
            f"{address} has its own. Leave one of the two out."
        )
    if is_encrypted(runner.address):
        missing = [n for n in ("ca_file", "cert_file", "key_file") if n not in given]
        if missing:
            names = " and ".join(f"runner.{name}" for name in missing)
            yield f"{address} needs {names} too, the PEM files of TLS: {RISK}. {REMEDY}"
    elif not is_loopback(runner.address):
        yield f"{address} is neither tls:// nor a loopback address, and {RISK}. {REMEDY}"
    elif given:
        names = " and ".join(f"runner.{name}" for name in given)
        yield f"{address} has no TLS, so {names} would protect nothing. {REMEDY}"


def is_encrypted(address: str) -> bool:
    """Whether a Dask address is one of TLS, with a host and a port."""
    return _host_of(address, "tls") is not None


def is_loopback(address: str) -> bool:
    """Whether a Dask address, of TCP or TLS, is one that no other machine reaches."""
    host = _host_of(address, "tcp") or _host_of(address, "tls")
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(address: str, scheme: str) -> str | None:
    """The host of ``SCHEME://HOST:PORT``; ``None`` if the address is anything else.

    Where no scheme is written it is TCP.
    """
    written = address if "://" in address else f"tcp://{address}"
    try:
        parts = urlsplit(written)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    bracketed = f"[{host}]" if host and ":" in host else host
    plain = written.lower() == f"{scheme}://{bracketed}:{port}"
    return host if host and port and plain else None
