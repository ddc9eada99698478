"""Numbers of a site for its hospital's Prometheus, at a loopback port that is off by default.

They tell of messages, stages and refusals, and of no case. Whoever is logged in at the site's
machine can read them; no other machine can, and no page of another origin. How long a stage took
says a little of the cases that it drew: a hospital that runs privately keeps them to itself.
"""

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federated.errors import ConsiliumError
from federated.files import append_line
from federated.site.home import SiteHome
from flows.appended import Appended
from flows.exposition import exposition
from flows.guard import LOOPBACK
from flows.ports import HOST

STAGES = "stages.jsonl"
# The events of the audit log that carry a message over the link, and which way.
DIRECTIONS = {"uploaded": "out", "downloaded": "in"}
REFUSED = frozenset({"refused", "upload refused", "download refused"})
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def count_stage(home: SiteHome, stage: str, seconds: float, done: bool) -> None:
    """Add a stage to those that are counted."""
    with suppress(OSError):
        line = {"stage": stage, "seconds": round(seconds, 3), "done": done}
        append_line(home.root / STAGES, f"\n{json.dumps(line)}")


class SiteMetrics(Collector):
    """What is counted at a site, from the files of its home."""

    def __init__(self, home: SiteHome) -> None:
        self._audit, self._stages = Appended(home.audit.path), Appended(home.root / STAGES)
        self._counted: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._clock_off = 0.0
        self._lock = threading.Lock()

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return exposition(self)

    def collect(self) -> Iterator[Metric]:
        """All numbers as they are now."""
        with self._lock:
            for line in self._audit.new():
                self._take_audit(line)
            for line in self._stages.new():
                self._take_stage(line)
            yield from self._metrics()

    def _take_audit(self, line: dict[str, Any]) -> None:
        event, size = line.get("event"), line.get("bytes")
        if event in DIRECTIONS and isinstance(size, int):
            self._counted["messages", DIRECTIONS[event]] += 1
            self._counted["bytes", DIRECTIONS[event]] += size
        elif event in REFUSED:
            self._counted["refused", str(event)] += 1
        elif event == "link down":
            self._counted["down",] += 1
        elif event == "clock off" and isinstance(line.get("seconds"), int):
            self._clock_off = line["seconds"]

    def _take_stage(self, line: dict[str, Any]) -> None:
        stage, seconds = line.get("stage"), line.get("seconds")
        if isinstance(stage, str) and isinstance(seconds, int | float):
            self._counted["stages", stage, "done" if line.get("done") else "failed"] += 1
            self._counted["seconds", stage] += seconds

    def _metrics(self) -> Iterable[Metric]:
        yield self._counter("messages", "consilium_site_messages", "Messages.", "direction")
        yield self._counter(
            "bytes", "consilium_site_message_bytes", "Bytes of messages.", "direction"
        )
        yield self._counter(
            "stages", "consilium_site_stages", "Stages that the site was asked to do.",
            "stage", "outcome",
        )  # fmt: skip
        yield self._counter(
            "seconds", "consilium_site_stage_seconds", "Seconds of the site's stages.", "stage"
        )
        yield self._counter(
            "refused", "consilium_site_refused",
            "Messages that the site refused, or that were refused of it.", "event",
        )  # fmt: skip
        yield self._counter("down", "consilium_site_link_down", "How often the link broke.")
        yield GaugeMetricFamily(
            "consilium_site_clock_off_seconds", "By how much the clock was off, when last told.",
            value=self._clock_off,
        )  # fmt: skip

    def _counter(self, what: str, name: str, told: str, *labels: str) -> Metric:
        family = CounterMetricFamily(name, told, labels=labels)
        for key, value in self._counted.items():
            if key[0] == what:
                family.add_metric(key[1:], value)
        return family


class _Quiet(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: who scrapes does so all day."""


@contextmanager
def serving_metrics(home: SiteHome, port: int) -> Iterator[int]:
    """Answer ``/metrics`` at a loopback port, or at a free one if 0, until the block ends.

    Raises:
        ConsiliumError: something listens there already.
    """
    try:
        server = make_server(HOST, port, _application(SiteMetrics(home)), handler_class=_Quiet)
    except OSError as error:
        raise ConsiliumError(
            f"Port {port} on {HOST}, meant for the site's metrics, cannot be had "
            f"({error.strerror or error}). Stop the program that has it, or name another port."
        ) from error
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _application(
    metrics: SiteMetrics,
) -> Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]:
    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        host = environ.get("HTTP_HOST", "").encode("latin-1")
        if not LOOPBACK.fullmatch(host):
            # A page whose host name was made to point here would be of this server's own origin.
            status, content = "400 Bad Request", b"Invalid host.\n"
        elif environ.get("PATH_INFO") != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            status, content = "404 Not Found", b"There is /metrics alone.\n"
        else:
            status, content = "200 OK", metrics.text()
        start(status, [("Content-Type", METRICS_TYPE), ("Content-Length", str(len(content)))])
        return [content]

    return answer
