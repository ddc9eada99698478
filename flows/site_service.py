"""The process at a site of a consortium: it reads what the site is asked, and begins its flows.

For each attempt at a run that the coordinator has begun, there is a run of ``fl-site`` in the
site's own Prefect. Only the newest attempt at a run is gone on with. A process that is started anew
begins where the last one was stopped: what the site has said, it is not asked again, and what it
has not, it does.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import copy_context
from pathlib import Path

from federated.exchange import kinds
from federated.exchange.journal import Entry, JournalledExchange, Position
from federated.exchange.message import MessageRefusedError
from federated.site.home import SiteHome
from federated.stages.asked import answer, has_answered
from federated.stages.asking import LEAVE, Ask, read_ask
from flows.site_flow import Desk, desk, fl_site
from tasks.pool import open_worker

# In seconds, between two looks at what has arrived.
LOOK = 0.02
# Rounds before the present one whose messages a site keeps.
KEPT_ROUNDS = 2


class SiteService:
    """What runs at a site until it is stopped.

    Args:
        home: the site's home.
        data: the folder that the site's data sets lie in.
        exchange: the site's own copy of what is for it in the exchange.
        say: tells a person something.
    """

    def __init__(
        self, home: SiteHome, data: Path, exchange: JournalledExchange, say: Callable[[str], None]
    ) -> None:
        self._home, self._data, self._exchange, self._say = home, data, exchange, say
        self._stopped = threading.Event()
        # Which Prefect is the site's own is known to the thread that has made this, and its copies.
        self._context = copy_context()
        self._pool: Executor | None = None
        self._pool_lock = threading.Lock()
        self._lock = threading.Lock()
        self._queues: dict[tuple[str, int], queue.Queue[Ask | None]] = {}
        self._waiting: dict[tuple[str, int], list[Ask]] = {}
        self._threads: list[threading.Thread] = []
        self._position = Position()

    def run(self) -> None:
        """Read what the site is asked, and have it done, until :meth:`stop`."""
        while not self._stopped.is_set():
            entries, self._position = self._exchange.entries(self._position)
            for entry in entries:
                self._take(entry)
            if not entries:
                self._stopped.wait(LOOK)

    def stop(self) -> None:
        """End; a stage that runs is not waited for."""
        self._stopped.set()
        with self._lock:
            for each in self._queues.values():
                each.put(None)
        with self._pool_lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def doing(self) -> str:
        """What the site does now, in a few words, for the coordinator and for a person."""
        with self._lock:
            now = {run: asks[0] for (run, _), asks in self._waiting.items() if asks}
        return "; ".join(f"{ask.stage} of {run}" for run, ask in now.items()) or "waits"

    def _take(self, entry: Entry) -> None:
        """Hand what the site is asked to the flow of that attempt, which is begun if need be."""
        if entry.recipient != self._home.name or not entry.kind.startswith(kinds.ASK):
            return
        try:
            asked = read_ask(self._home, self._exchange.root / entry.path)
        except FileNotFoundError:
            return
        except MessageRefusedError as error:
            self._home.audit.add("refused", reason=error.reason, said=str(error))
            return
        if has_answered(self._home, self._exchange, asked):
            return
        key = (asked.run, asked.attempt)
        with self._lock:
            if any(run == asked.run and attempt > asked.attempt for run, attempt in self._queues):
                return
            asks = self._waiting.setdefault(key, [])
            if asked in asks:
                return
            asks.append(asked)
            known = key in self._queues
            if not known:
                if asked.stage == LEAVE:
                    # Nothing of that run is being done here.
                    del self._waiting[key]
                    return
                self._queues[key] = queue.Queue()
            self._queues[key].put(asked)
        if not known:
            self._begin(*key)

    def _begin(self, run: str, attempt: int) -> None:
        """Begin the flow of an attempt at a run, which takes the place of those before it."""
        with self._lock:
            for (other, number), each in self._queues.items():
                if other == run and number < attempt:
                    each.put(None)
        self._say(f"run {run}, attempt {attempt}: begun")
        context = self._context.copy()
        thread = threading.Thread(target=context.run, args=(self._work, run, attempt), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, run: str, attempt: int) -> None:
        desk.set(
            Desk(
                self._home, self._data, self._exchange, self._exchange.root,
                self._worker, self._asks, self._asked_now,
            )
        )  # fmt: skip
        try:
            done = fl_site(run, attempt)
        except Exception as error:
            self._home.audit.add("flow failed", run=run, attempt=attempt, said=str(error))
            self._say(f"run {run}, attempt {attempt}: stopped ({error})")
            for asked in self._asked_now():
                if (asked.run, asked.attempt) == (run, attempt) and asked.stage != LEAVE:
                    said = f"{self._home.name} could not begin or go on with its flow of the run."
                    answer(self._home, self._exchange, asked, said)
        else:
            self._say(f"run {run}, attempt {attempt}: ended after {done} stages")
        with self._lock:
            self._queues.pop((run, attempt), None)
            self._waiting.pop((run, attempt), None)

    def _asks(self, run: str, attempt: int) -> Iterator[Ask]:
        key = (run, attempt)
        with self._lock:
            mine = self._queues[key]
        while (asked := mine.get()) is not None:
            self._forget_before(asked)
            yield asked
            with self._lock, suppress(ValueError, KeyError):
                self._waiting[key].remove(asked)

    def _forget_before(self, asked: Ask) -> None:
        """Remove the site's copies of messages of rounds that are done."""
        for number in range(1, asked.round - KEPT_ROUNDS + 1):
            if (self._exchange.root / asked.run / f"round-{number:03d}").is_dir():
                self._exchange.forget(asked.run, number)

    def _asked_now(self) -> list[Ask]:
        with self._lock:
            return [asked for asks in self._waiting.values() for asked in asks]

    def _worker(self) -> Executor:
        """The process that the site's stages run in; another one, where it has died."""
        with self._pool_lock:
            if self._pool is None or getattr(self._pool, "_broken", False):
                self._pool = open_worker()
            return self._pool
