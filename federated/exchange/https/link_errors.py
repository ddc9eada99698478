"""Why a site cannot reach its coordinator, in words for the person who has to mend it."""

import socket
import ssl
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from federated.errors import ConsiliumError, printable

Cause = Literal[
    "name", "connection", "trust", "proxy", "unknown", "suspended", "clock", "busy", "broken",
    "refused", "other server",
]  # fmt: skip
# What a person has to mend; the rest passes by itself.
LASTING: frozenset[Cause] = frozenset({"trust", "unknown", "suspended", "clock", "other server"})


class LinkError(ConsiliumError):
    """A site has not reached its coordinator, or was not let in.

    ``cause`` says in a word or two why.
    """

    def __init__(self, cause: Cause, text: str) -> None:
        super().__init__(text)
        self.cause = cause

    @property
    def lasts(self) -> bool:
        """Whether a person has to do something, so that it helps little to try again soon."""
        return self.cause in LASTING


def proxy_for(url: str) -> str:
    """The proxy that requests go through by the environment, without its password; or nothing."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if not proxy or proxy_bypass(host):
        return ""
    place = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return f"{place.hostname}:{place.port}" if place.port else str(place.hostname)


def explained(error: httpx.HTTPError, url: str) -> LinkError:
    """What has failed of a request, from what the library has raised."""
    proxy = proxy_for(url)
    through = f" through the proxy {proxy} (of HTTPS_PROXY)" if proxy else ""
    asked = proxy or urlsplit(url).netloc
    said = printable(str(error), 200) or type(error).__name__
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return LinkError(
                "trust",
                f"{url}{through} shows a certificate that this site does not trust "
                f"({cause.verify_message}). Nothing was sent. Somebody is in between, or the "
                "coordinator has a new authority: compare its fingerprint by telephone, and put "
                "its new kit here.",
            )
        if isinstance(cause, socket.gaierror):
            return LinkError(
                "name",
                f"The name of {asked} is not known to this machine's name service, so that {url} "
                f"cannot be reached{through}. Check the address in the coordinator's kit, the "
                "network, and whether a proxy has to be named in HTTPS_PROXY.",
            )
        if isinstance(cause, ConnectionRefusedError):
            return LinkError(
                "connection",
                f"Nobody listens at {asked}, so that {url} cannot be reached{through}. Ask whether "
                "the coordinator has been started, and check the port and the firewall.",
            )
    if isinstance(error, httpx.ProxyError):
        return LinkError(
            "proxy",
            f"The proxy {proxy or 'in between'} does not let this site through to {url} ({said}). "
            "Have those who run the proxy allow this host and port, or give its user and password "
            "in HTTPS_PROXY; NO_PROXY names hosts that need none.",
        )
    return LinkError(
        "broken",
        f"The connection to {url}{through} broke off or took too long ({said}). It is tried again; "
        "if it does not pass, check the network between here and there.",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def not_enrolled(site: str, fingerprint: str, url: str) -> LinkError:
    """The error of a site whose requests the coordinator does not take to be anybody's."""
    return LinkError(
        "unknown",
        f"The coordinator at {url} knows no site {site} with this site's key, whose fingerprint is "
        f"{fingerprint}. Send it this site's enrolment request, and compare the fingerprint by "
        "telephone; if the site is enrolled, it has another key or belongs to another consortium.",
    )


def suspended(site: str, url: str) -> LinkError:
    """The error of a site that the coordinator has suspended."""
    return LinkError(
        "suspended",
        f"The coordinator at {url} has suspended {site}, and takes and gives nothing until it "
        "enrols the site again. Ask those who run it why.",
    )


def wrong_clock(seconds: float, url: str) -> LinkError:
    """The error of a site whose clock is not the coordinator's, and changes."""
    return LinkError("clock", f"{clock_text(seconds, url)} Set this machine's clock (NTP).")


def clock_text(seconds: float, url: str) -> str:
    """By how much this machine's clock is off; ``seconds`` is what has to be added to it."""
    way = "behind" if seconds > 0 else "ahead of"
    return f"This machine's clock is {abs(seconds):.0f} s {way} the clock of {url}."


def other_server(url: str, status: int) -> LinkError:
    """The error of a site that has reached something else than a coordinator."""
    return LinkError(
        "other server",
        f"What answers at {url} is no coordinator's exchange (HTTP {status}). Check the address in "
        "the coordinator's kit, with its path, and what a reverse proxy there makes of it.",
    )
