"""Whether a server that a run is told to use answers, found out before anything waits for it."""

import os
import re
import ssl
from functools import lru_cache
from threading import Thread
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from federated.errors import ConsiliumError

CONNECT_S = 5.0
# The longest wait for an answer, whatever holds it up, as a name that nobody resolves.
LONGEST_S = 12.0
# What proxies answer for a server behind them that does not answer.
GATEWAY = (502, 503, 504)
NOT_FOUND = 404


@lru_cache(maxsize=16)
def require_answer(
    url: str,
    health: str,
    variable: str,
    otherwise: str,
    *,
    must_know: bool = False,
    authority: str | None = None,
) -> None:
    """Ask a server for any answer; one that has answered is not asked again.

    Args:
        url: where the server is, as ``variable`` has it. If it is not an HTTP address nothing is
            asked.
        health: a page of the server that needs no rights, such as ``/health``.
        variable: the variable of the environment that names the server.
        otherwise: what happens where the variable is not set, for a person.
        must_know: whether a server that does not know the page counts as another one.
        authority: the file of the certificate that is trusted alone; those of the machine if left
            out.

    Raises:
        ConsiliumError: the server does not answer within 12 seconds; the message names
            ``variable``.
    """
    if not url.startswith(("http://", "https://")):
        return
    said = ["it does not answer"]

    def ask() -> None:
        try:
            response = httpx.get(
                url.rstrip("/") + health,
                timeout=httpx.Timeout(LONGEST_S, connect=CONNECT_S),
                verify=ssl.create_default_context(cafile=authority) if authority else True,
            )
            status = response.status_code
            wrong = status in GATEWAY or (must_know and status == NOT_FOUND)
            said[0] = f"the answer is HTTP {status}" if wrong else ""
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            said[0] = str(error) or type(error).__name__

    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LONGEST_S)
    if said[0]:
        raise ConsiliumError(
            f"{variable} is {without_password(url)}, and no such server answers there "
            f"({without_password(said[0])}){_by_way_of(url)}. Start that server, mend {variable}, "
            f"or unset it to {otherwise}."
        )


def require_mlflow() -> None:
    """Refuse an ``MLFLOW_TRACKING_URI`` at which nothing answers.

    Raises:
        ConsiliumError: nothing does; the message names the variable.
    """
    if url := os.environ.get("MLFLOW_TRACKING_URI"):
        # As MLflow's client itself trusts it.
        authority = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        otherwise = "use the local mlruns/"
        require_answer(url, "/health", "MLFLOW_TRACKING_URI", otherwise, authority=authority)


def without_password(text: str) -> str:
    """An address, or a text with addresses, without the names and passwords in them."""
    return re.sub(r"//[^/@\s]*@", "//***@", text)


def _by_way_of(url: str) -> str:
    """The proxy that was asked, in words; ``""`` if there was none."""
    try:
        parts = urlsplit(url)
    except ValueError:  # no address at all
        return ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return ""
    return (
        f", by way of the proxy {without_password(proxy)} of {parts.scheme.upper()}_PROXY; put "
        f"{parts.hostname} into NO_PROXY if it is to be asked without"
    )
