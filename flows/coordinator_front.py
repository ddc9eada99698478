"""What stands at a coordinator's one port: the exchange, and what its people look at, each apart.

```
/exchange/v2/   the exchange: for sites, by their signatures; no login opens it
/prefect/       Prefect's pages, and its API at /prefect/api
/mlflow/        MLflow's pages and its API
/status         how the sites and the runs are, on one page; /status/anew loads itself anew
/metrics        numbers for Prometheus
/health         whether all of them answer
```

The exchange answers in this process. Prefect's and MLflow's servers are processes of their own, on
loopback ports, so that nothing they do keeps a site waiting. A site never needs the login.
"""

import asyncio
import hmac
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from starlette.types import ASGIApp

from federated.exchange.https.authentication import PREFIX
from flows.coordinator_logins import MLFLOW, PREFECT
from flows.forwarding import Forwarder, say
from flows.guard import HEADERS, Address, App, Guard, Receive, Scope, Send, headers_of
from flows.guarded_server import mlflow_is_open, prefect_is_open
from flows.login import Login

METRICS, HEALTH, STATUS = "/metrics", "/health", "/status"
ANEW = f"{STATUS}/anew"
PAGE_TYPE = "text/html; charset=utf-8"
# Whatever a site has said, nothing of it runs.
NO_SCRIPT = {
    "content_security_policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
}
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# In seconds, for which an answer about health is given again: nobody makes work by asking.
HEALTH_KEPT = 2.0


@dataclass(frozen=True)
class Told:
    """What a coordinator tells of itself, as of now: numbers for Prometheus, and a page.

    The page is told whether a browser is to load it anew by itself.
    """

    metrics: Callable[[], bytes]
    status: Callable[[bool], str]


class CoordinatorFront:
    """The application at the coordinator's port.

    Args:
        exchange: what answers sites.
        address: how the server is called; a request that calls it otherwise gets no page.
        login: of Prefect's and MLflow's servers, and of those who may use them.
        scraper: the login of who reads the metrics alone; its secret is a bearer token.
        prefect: passes requests on to Prefect's server.
        mlflow: passes requests on to MLflow's server.
        told: gives the numbers, in Prometheus' text format, and the page.
    """

    def __init__(
        self,
        exchange: ASGIApp,
        address: Address,
        login: Login,
        scraper: Login,
        prefect: Forwarder,
        mlflow: Forwarder,
        told: Told,
    ) -> None:
        self._exchange = exchange
        self._behind = {PREFECT: prefect, MLFLOW: mlflow}
        self._pages: dict[str, App] = {
            # Prefect's pages ask for the login themselves.
            PREFECT: Guard(
                prefect, login, prefect_is_open(PREFECT), prompts=False, address=address
            ),
            MLFLOW: Guard(mlflow, login, mlflow_is_open(MLFLOW), prompts=True, address=address),
            STATUS: Guard(
                _StatusPage(told.status), login, lambda *_: False, prompts=True, address=address
            ),
        }
        bearer = b"Bearer " + scraper.secret.encode()
        self._metrics = _Metrics(told.metrics, bearer)
        self._health: tuple[float, dict[str, bool]] | None = None
        self._asking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        path: str = scope["path"]
        if PREFIX in path:
            # A proxy in front may have put a path before it.
            before = path[: path.rindex(PREFIX)]
            await self._exchange(dict(scope) | {"root_path": before}, receive, send)
            return
        page = next((a for at, a in self._pages.items() if _is_below(path, at)), None)
        if page is not None and not _goes_up(scope):
            await page(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif path == METRICS:
            await self._metrics.answer(scope, send)
        elif path == HEALTH:
            await self._say_health(send)
        elif path == "/":
            await say(send, 307, "", location=f"{PREFECT}/", **_PAGE_HEADERS)
        else:
            await say(send, 404, "There is nothing here.", **_PAGE_HEADERS)

    async def _say_health(self, send: Send) -> None:
        async with self._asking:
            now = time.monotonic()
            if self._health is None or now - self._health[0] > HEALTH_KEPT:
                paths = {PREFECT: f"{PREFECT}/api/health", MLFLOW: f"{MLFLOW}/health"}
                found = await asyncio.gather(
                    *(each.is_healthy(paths[at]) for at, each in self._behind.items())
                )
                named = (at.strip("/") for at in self._behind)
                self._health = (now, {"exchange": True} | dict(zip(named, found, strict=True)))
        told = self._health[1]
        kind = "application/json"
        await say(send, 200 if all(told.values()) else 503, json.dumps(told), content_type=kind)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Nothing has to be made; what is open is closed."""
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for each in self._behind.values():
            with suppress(Exception):
                await each.close()
        await send({"type": "lifespan.shutdown.complete"})


_PAGE_HEADERS = {name.decode().replace("-", "_"): value.decode() for name, value in HEADERS.items()}


class _StatusPage:
    """The page on sites and runs, which is made anew for whoever asks, one at a time."""

    def __init__(self, status: Callable[[bool], str]) -> None:
        self._status = status
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif scope["path"] not in (STATUS, ANEW):
            await say(send, 404, "There is nothing here.", **_PAGE_HEADERS)
        elif scope["method"] not in ("GET", "HEAD"):
            await say(send, 405, "This is read by GET.", allow="GET, HEAD", **_PAGE_HEADERS)
        else:
            async with self._making:
                page = await asyncio.to_thread(self._status, scope["path"] == ANEW)
            await say(send, 200, page, content_type=PAGE_TYPE, **(_PAGE_HEADERS | NO_SCRIPT))


class _Metrics:
    """The numbers, for whoever has the token of the one who reads them.

    It is another secret than the login, which would open Prefect and MLflow too, and no loopback
    address, since who scrapes is most often another machine. No browser sends a bearer token by
    itself, so that no page of another origin can ask.
    """

    def __init__(self, metrics: Callable[[], bytes], bearer: bytes) -> None:
        self._metrics, self._bearer = metrics, bearer
        self._reading = asyncio.Lock()

    async def answer(self, scope: Scope, send: Send) -> None:
        """Answer a request."""
        given = headers_of(scope).get(b"authorization", [])
        if len(given) != 1 or not hmac.compare_digest(given[0], self._bearer):
            said = "Unauthorized: Prometheus reads this with the token of metrics.token."
            await say(send, 401, said, www_authenticate="Bearer", **_PAGE_HEADERS)
        elif scope["method"] not in ("GET", "HEAD"):
            await say(send, 405, "This is read by GET.", allow="GET, HEAD", **_PAGE_HEADERS)
        else:
            async with self._reading:
                content = await asyncio.to_thread(self._metrics)
            await say(send, 200, content.decode(), content_type=METRICS_TYPE, **_PAGE_HEADERS)


def _is_below(path: str, at: str) -> bool:
    return path == at or path.startswith(f"{at}/")


def _goes_up(scope: Scope) -> bool:
    """Whether a path has a part that means another one: guards judge it as it is written."""
    return not {".", ".."}.isdisjoint(scope["path"].split("/"))
