"""Numbers of a coordinator for Prometheus.

Runs are processes of their own, so that everything is read from files: the line that each round
adds to ``rounds.jsonl``, the audit log, when each site last said hello, and what lies in the
exchange. Nothing is told that a record of a round does not tell: of private runs there are no
seconds.
"""

import json
import os
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from federated.errors import ConsiliumError
from federated.files import append_line
from federated.run.coordinator_home import CoordinatorHome
from flows.appended import Appended
from flows.exposition import exposition

# In seconds, for which a look at the whole exchange counts.
EXCHANGE_KEPT = 30.0
NUMBERS = re.compile(r"-?\d+")
# How many kinds of refusals are told apart.
MOST_REASONS = 50


def count_round(home: CoordinatorHome, line: Mapping[str, Any]) -> None:
    """Add a round to those that are counted."""
    # A break before it as well: it is not lost where the line before it was cut off.
    append_line(home.rounds_path, f"\n{json.dumps(line)}")


class CoordinatorMetrics(Collector):
    """What is counted at a coordinator, from the files of its home."""

    def __init__(self, home: CoordinatorHome) -> None:
        self._home = home
        self._rounds, self._audit = Appended(home.rounds_path), Appended(home.audit.path)
        self._counted: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._epsilon: dict[tuple[str, str], float] = {}
        self._exchange: tuple[float, int, int] | None = None
        self._lock = threading.Lock()

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return exposition(self)

    def collect(self) -> Iterator[Metric]:
        """All numbers as they are now."""
        with self._lock:
            for line in self._rounds.new():
                with suppress(KeyError, TypeError, ValueError, AttributeError):
                    self._take_round(line)
            for line in self._audit.new():
                self._take_audit(line)
            yield from self._of_rounds()
            yield from self._of_requests()
            yield from self._of_exchange()
        yield from self._of_sites()

    def _take_round(self, line: Mapping[str, Any]) -> None:
        # All of it is looked at before any is counted: a strange line counts for nothing.
        experiment, lost = str(line["experiment"]), bool(line["lost"])
        sites = [(str(s), o) for o in ("summed", "left_behind") for s in line[o]]
        sizes = {str(name): int(size) for name, size in line["bytes"].items()}
        taken = {str(name): float(seconds) for name, seconds in line["seconds"].items()}
        spent = {(str(site), experiment): float(e) for site, e in line["epsilon"].items()}
        self._counted["rounds", experiment] += 1
        self._counted["lost", experiment] += lost
        for site, outcome in sites:
            self._counted["site", site, outcome] += 1
        for direction, size in sizes.items():
            self._counted["bytes", direction] += size
        for stage, seconds in taken.items():
            self._counted["seconds", stage] += seconds
        self._epsilon |= spent

    def _take_audit(self, line: Mapping[str, Any]) -> None:
        event, sender = line.get("event"), str(line.get("sender", ""))
        if event == "arrived" and isinstance(line.get("bytes"), int):
            self._counted["arrived", sender] += 1
            self._counted["arrived bytes", sender] += line["bytes"]
        elif event in ("request refused", "refused"):
            self._counted["refused", self._reason(str(line.get("reason", "")))] += 1
        elif event == "requests refused" and isinstance(line.get("count"), int):
            self._counted["refused", "more of these"] += line["count"]

    def _reason(self, told: str) -> str:
        """The kind of a refusal: of numbers in it there would be a series each."""
        reason = NUMBERS.sub("N", told)[:60]
        known = [key for key in self._counted if key[0] == "refused"]
        return reason if ("refused", reason) in known or len(known) < MOST_REASONS else "other"

    def _of_rounds(self) -> Iterator[Metric]:
        yield self._counter("rounds", "consilium_rounds", "Rounds done.", "experiment")
        yield self._counter(
            "lost", "consilium_rounds_lost", "Rounds whose sum nobody opened.", "experiment"
        )
        yield self._counter(
            "site", "consilium_site_rounds",
            "Rounds that a site was waited for, by whether it was left behind.", "site", "outcome",
        )  # fmt: skip
        yield self._counter(
            "bytes", "consilium_round_bytes", "Bytes of rounds, up to and down from the exchange.",
            "direction",
        )  # fmt: skip
        yield self._counter(
            "seconds", "consilium_stage_seconds",
            "Seconds in which some site was in a stage; of runs without privacy alone.", "stage",
        )  # fmt: skip
        spent = GaugeMetricFamily(
            "consilium_site_epsilon", "What a site tells it has spent in its newest run, by RDP.",
            labels=("site", "experiment"),
        )  # fmt: skip
        for labels, value in self._epsilon.items():
            spent.add_metric(labels, value)
        yield spent

    def _of_requests(self) -> Iterator[Metric]:
        yield self._counter("arrived", "consilium_arrived_messages", "Messages of a site.", "site")
        yield self._counter(
            "arrived bytes", "consilium_arrived_bytes", "Bytes of messages of a site.", "site"
        )
        yield self._counter(
            "refused", "consilium_refused", "Requests and messages that were refused.", "reason"
        )

    def _of_exchange(self) -> Iterator[Metric]:
        now = time.monotonic()
        if self._exchange is None or now - self._exchange[0] > EXCHANGE_KEPT:
            self._exchange = (now, *_size(self._home.exchange_path))
        _, count, size = self._exchange
        yield GaugeMetricFamily("consilium_exchange_files", "Files in the exchange.", value=count)
        yield GaugeMetricFamily("consilium_exchange_bytes", "Bytes in the exchange.", value=size)

    def _of_sites(self) -> Iterator[Metric]:
        hello = GaugeMetricFamily(
            "consilium_site_last_hello_timestamp_seconds", "When a site last said hello.",
            labels=("site",),
        )  # fmt: skip
        standing = GaugeMetricFamily(
            "consilium_sites", "Sites that the coordinator knows.", labels=("standing",)
        )
        members: Mapping[str, Any] = {}
        with suppress(ConsiliumError):
            members = self._home.members().members
        for name in members:
            with suppress(OSError):
                seen = (self._home.seen_path / f"{name}.json").stat().st_mtime
                hello.add_metric((name,), seen)
        for text, count in Counter(member.standing for member in members.values()).items():
            standing.add_metric((text,), count)
        yield hello
        yield standing

    def _counter(self, what: str, name: str, told: str, *labels: str) -> Metric:
        family = CounterMetricFamily(name, told, labels=labels)
        for key, value in self._counted.items():
            if key[0] == what:
                family.add_metric(key[1:], value)
        return family


def _size(folder: Path) -> tuple[int, int]:
    """How many files there are below a folder, and their bytes."""
    count = size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - many files
                count += 1
    return count, size
