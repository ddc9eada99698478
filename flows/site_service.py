"""The process at a site of a consortium: it reads what the site is asked, and begins its flows.

For each attempt at a run that the coordinator has begun, there is a run of ``fl-site`` in the
site's own Prefect. Only the newest attempt at a run is gone on with. A process that is started anew
begins where the last one was stopped: what the site has said, it is not asked again, and what it
has not, it does.

Whoever asks has a bound: of an attempt each stage is done once, so many attempts are gone on with
at once, and so much may wait. A disk that is full, or another fault of the site's own machine, is
said and waited for.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path

from cachetools import LRUCache

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.journal import Entry, JournalledExchange, Position
from federated.exchange.message import MessageRefusedError
from federated.site.home import SiteHome
from federated.stages.asked import AskedBefore, answer, has_answered, has_done, is_proposed
from federated.stages.asking import LEAVE, Ask, read_ask
from federated.stages.site import SiteCall
from federated.stages.worker import is_private
from flows.site_flow import Desk, desk, fl_site
from tasks.pool import open_worker

# In seconds, between two looks at what has arrived, and between two tries of what did not work.
LOOK, AGAIN = 0.02, 2.0
# Rounds before the present one whose messages a site keeps.
KEPT_ROUNDS = 2
# Attempts at runs that are gone on with at once, and attempts that a run may have.
MOST_BEGUN, MOST_ATTEMPTS = 16, 1000
# Runs of which the newest attempt is known; for others one is proposed anew.
MOST_RUNS = 1000
# What a site was asked in an attempt and has not done yet.
MOST_WAITING = 1000


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
        self._before = AskedBefore(home)
        # Of runs, the newest attempt that was begun here.
        self._newest: LRUCache[str, int] = LRUCache(MOST_RUNS)
        # Of attempts at runs, whether they are private.
        self._private: LRUCache[tuple[str, int], bool] = LRUCache(MOST_BEGUN)
        self._private_lock = threading.Lock()
        self._position = Position()

    def run(self) -> None:
        """Read what the site is asked, and have it done, until :meth:`stop`."""
        read = None
        while not self._stopped.is_set():
            # What there was before it is read: what is added meanwhile is read the next time.
            mark = self._exchange.journal.mark()
            if mark == read:
                self._stopped.wait(LOOK)
                continue
            before = self._position
            entries, self._position = self._exchange.entries(before)
            for entry in entries:
                self._until_it_works(partial(self._take, entry))
            if self._position == before:
                read = mark

    def _until_it_works(self, step: Callable[[], None]) -> None:
        """Do something again and again until it works, and say once why it does not.

        What fails is a matter of the site's own machine, as a disk that is full: the process stays
        there, and goes on as soon as it can.
        """
        said = ""
        while not self._stopped.is_set():
            try:
                step()
                return
            except (ConsiliumError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    self._say(f"{said} It is tried again until it works.")
                self._stopped.wait(AGAIN)

    def stop(self) -> None:
        """End: a stage that runs is not waited for, and no other one is begun."""
        self._stopped.set()
        with self._lock:
            for each in self._queues.values():
                each.put(None)
        with self._pool_lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)

    def doing(self) -> str:
        """What the site does now, in a few words, for the coordinator and for a person.

        Of a private run no more than that it works: when its stages begin and end would tell how
        long they take.
        """
        with self._lock:
            now = {run: asks[0] for (run, _), asks in self._waiting.items() if asks}
        told = {
            "works" if self._is_private(ask) else f"{ask.stage} of {run}"
            for run, ask in now.items()
        }
        return "; ".join(sorted(told)) or "waits"

    def _is_private(self, asked: Ask) -> bool:
        key = (asked.run, asked.attempt)
        call = SiteCall(self._home.root, self._exchange.root, *key)
        with self._private_lock:
            if key not in self._private:
                try:
                    self._private[key] = is_private(call)
                except (ConsiliumError, OSError):
                    return True
            return self._private[key]

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
        with self._lock:
            if has_answered(self._home, self._exchange, asked):
                # The word may have been written by a process that has ended then.
                is_done = has_done(self._home, self._exchange, asked)
                self._before.note_answered(asked, is_done)
                return
            if again := self._before.is_answered(asked):
                why = f"it has answered this message in attempt {asked.attempt} before"
            else:
                why = self._before.repeated(asked) or self._hand(asked) or ""
        if not why:
            return
        said = f"{self._home.name} does not do {asked.stage}: {why}."
        reason = "delivered again" if again else "too much"
        self._home.audit.add("refused", reason=reason, run=asked.run, said=said)
        if not again:
            answer(self._home, self._exchange, asked, said)

    def _hand(self, asked: Ask) -> str | None:
        """Hand something to the flow of its attempt, or say why it is too much.

        Whoever calls holds the lock.
        """
        key = (asked.run, asked.attempt)
        if asked.attempt < self._newest.get(asked.run, 0):
            return None
        waiting, known = self._waiting.get(key, []), key in self._queues
        if asked in waiting:
            return None
        if not known and asked.stage == LEAVE:
            # Nothing of that run is being done here.
            return None
        if len(waiting) >= MOST_WAITING:
            return f"{len(waiting)} other things wait to be done in that run"
        if asked.attempt > MOST_ATTEMPTS:
            return f"a run has at most {MOST_ATTEMPTS} attempts; begin another run"
        if not known and not is_proposed(self._home, self._exchange, asked):
            return "nothing is proposed to it in that attempt at a run"
        if not known and not self._has_room():
            return f"{len(self._queues)} runs are gone on with, and no more can be"
        self._before.note(asked)
        self._newest[asked.run] = asked.attempt
        self._waiting.setdefault(key, []).append(asked)
        if not known:
            self._queues[key] = queue.Queue()
            self._begin(*key)
        self._queues[key].put(asked)
        return None

    def _has_room(self) -> bool:
        """Whether one more attempt can be gone on with; one that waits for nothing makes room."""
        if len(self._queues) < MOST_BEGUN:
            return True
        idle = next((key for key in self._queues if not self._waiting.get(key)), None)
        if idle is None:
            return False
        # Should it be asked something later, it is begun again.
        self._queues.pop(idle).put(None)
        return True

    def _begin(self, run: str, attempt: int) -> None:
        """Begin the flow of an attempt at a run, which takes the place of those before it."""
        for (other, number), each in self._queues.items():
            if other == run and number < attempt:
                each.put(None)
        self._say(f"run {run}, attempt {attempt}: begun")
        context = self._context.copy()
        asks = self._queues[run, attempt]
        threading.Thread(
            target=context.run, args=(self._work, run, attempt, asks), daemon=True
        ).start()

    def _work(self, run: str, attempt: int, asks: "queue.Queue[Ask | None]") -> None:
        desk.set(
            Desk(
                self._home, self._data, self._exchange, self._exchange.root,
                self._worker, partial(self._asks, asks), self._asked_now, self._missing_before,
                self._tell, self._say,
            )
        )  # fmt: skip
        try:
            done = fl_site(run, attempt)
        except Exception as error:
            self._say(f"run {run}, attempt {attempt}: stopped ({error})")
            told = str(error)
            self._until_it_works(
                lambda: self._home.audit.add("flow failed", run=run, attempt=attempt, said=told)
            )
            self._left_undone(run, attempt)
        else:
            self._say(f"run {run}, attempt {attempt}: ended after {done} stages")
        with self._lock:
            if self._queues.get((run, attempt)) is not asks:
                return
            del self._queues[run, attempt]
            left = self._waiting.pop((run, attempt), [])
        for asked in left if not self._stopped.is_set() else ():
            # It came while the flow ended.
            with self._lock:
                self._hand(asked)

    def _left_undone(self, run: str, attempt: int) -> None:
        """Say that what the site is asked in an attempt is not done."""
        with self._lock:
            left, self._waiting[run, attempt] = self._waiting.get((run, attempt), []), []
        for asked in left:
            if asked.stage != LEAVE:
                self._tell(
                    asked, f"{self._home.name} could not begin or go on with its flow of the run."
                )

    def _tell(self, asked: Ask, error: str | None) -> None:
        """Say that something is done, or why it is not, as soon as that can be written."""
        self._until_it_works(lambda: self._answer(asked, error))
        if error is None:
            # By the plan of that round, and not by a cue alone, those before it are done.
            self._forget_before(asked)

    def _answer(self, asked: Ask, error: str | None) -> None:
        """Say it, and note that it is said: the message itself is kept for some rounds alone."""
        answer(self._home, self._exchange, asked, error)
        with self._lock:
            self._before.note_answered(asked, error is None)

    def _missing_before(self, asked: Ask) -> str | None:
        with self._lock:
            return self._before.missing_before(asked)

    def _asks(self, mine: "queue.Queue[Ask | None]", run: str, attempt: int) -> Iterator[Ask]:
        while (asked := mine.get()) is not None and not self._stopped.is_set():
            try:
                yield asked
            finally:
                with self._lock, suppress(ValueError, KeyError):
                    self._waiting[run, attempt].remove(asked)

    def _forget_before(self, asked: Ask) -> None:
        """Remove the site's copies of messages of rounds that are done."""
        for number in self._exchange.rounds(asked.run):
            if 1 <= number <= asked.round - KEPT_ROUNDS:
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
