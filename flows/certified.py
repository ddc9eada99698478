"""The names that a server's certificate is for: it is called by these, and by no others."""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509

from federated.errors import ConsiliumError, unreadable
from flows.guard import Address

# A value of the header Host: a name, or an address of IPv6 in brackets, and perhaps a port.
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_][a-z0-9._-]*)(:[0-9]{1,5})?")
LOGIN_TOLD_BY = "consilium coordinator start --env"


def certified_names(chain: Path) -> tuple[str, ...]:
    """The host names and addresses in a server's certificate, the first one of a PEM file.

    Raises:
        ConsiliumError: the file cannot be read, or the certificate is for no name.
    """
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
        told = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError) as error:
        raise unreadable(chain, error) from error
    except x509.ExtensionNotFound:
        told = None
    names = []
    if told is not None:
        names = [*told.get_values_for_type(x509.DNSName)]
        names += map(str, told.get_values_for_type(x509.IPAddress))
    if not names:
        raise ConsiliumError(
            f"The certificate {chain} is for no host name: it has no subject alternative names, "
            "without which no client takes it. Have one made for the names of this server."
        )
    return tuple(names)


def certified_address(names: Iterable[str], told: str) -> Address:
    """How a server is called that shows a certificate for ``names``, at any port.

    A name may be a wildcard, ``*.example.org``, which stands for one label. ``told`` is the
    server's address, for whoever called it by something else.
    """
    exact, below = set(), set()
    for name in names:
        lower = name.lower()
        if lower.startswith("*."):
            below.add(lower.removeprefix("*."))
        else:
            exact.add(_plain(lower))

    def is_own(value: bytes) -> bool:
        found = HOST.fullmatch(value.decode("latin-1").lower())
        if found is None:
            return False
        host = _plain(found[1].strip("[]"))
        return host in exact or host.partition(".")[2] in below

    return Address("https", is_own, told, LOGIN_TOLD_BY)


def _plain(host: str) -> str:
    """A name, or an address in its shortest form."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
