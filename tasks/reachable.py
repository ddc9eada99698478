"""Whether a server answers that a run is told to use, found out before anything waits for it."""

import os
from functools import lru_cache
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from federated.errors import ConsiliumError

CONNECT_S = 5.0
# Whatever holds an answer up, names that nobody resolves among it.
LONGEST_S = 12.0
# What proxies answer for a server behind them that does not.
GATEWAY = (502, 503, 504)


@lru_cache(maxsize=16)
def require_answer(url: str, health: str, variable: str, otherwise: str) -> None:
    """Ask a server for any answer; one that has answered is not asked again.

    Args:
        url: where the server is, as ``variable`` has it. What is no HTTP address is not asked.
        health: a page of it that needs no rights, such as ``/health``.
        otherwise: what happens where the variable is not set, for a person.

    Raises:
        ConsiliumError: it does not answer within 12 seconds; names ``variable``.
    """
    if not url.startswith(("http://", "https://")):
        return
    said = ["it does not answer"]

    def ask() -> None:
        try:
            response = httpx.get(
                url.rstrip("/") + health, timeout=httpx.Timeout(LONGEST_S, connect=CONNECT_S)
            )
            status = response.status_code
            said[0] = f"the answer is HTTP {status}" if status in GATEWAY else ""
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            said[0] = str(error) or type(error).__name__

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LONGEST_S)
    if said[0]:
        raise ConsiliumError(
            f"{variable} is {url}, and no server answers there ({said[0]}){_by_way_of(url)}. Start "
            f"that server, mend {variable}, or unset it to {otherwise}."
        )


def require_mlflow() -> None:
    """Refuse an ``MLFLOW_TRACKING_URI`` at which nothing answers.

    Raises:
        ConsiliumError: names the variable.
    """
    if url := os.environ.get("MLFLOW_TRACKING_URI"):
        require_answer(url, "/health", "MLFLOW_TRACKING_URI", "use the local mlruns/")


def _by_way_of(url: str) -> str:
    """Which proxy was asked, if any."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    return (
        f", by way of the proxy {proxy} of {parts.scheme.upper()}_PROXY; put {parts.hostname} into "
        "NO_PROXY if it is to be asked without"
    )
