"""Sites of a consortium in place of a pool: what is submitted for a site is asked of that site.

To the graph of a round it is a pool as any other. A future ends with the site's own word, or, where
that does not come in time, with the reason.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, RefusalError
from federated.settings.sections import Parties
from federated.stages.asking import (
    ERASING,
    FOLLOWING,
    LEAVE,
    Argument,
    Ask,
    Numbers,
    ask,
    hear_word,
    is_answered,
)
from federated.stages.coordinator import Coordinator

# In seconds, between two looks at what has arrived.
FIRST_LOOK, LONGEST_LOOK = 0.01, 0.05
# For as many sites as a consortium can have, several times over.
THREADS = 4096
# What sites erase of a round or a run: nobody has to wait for it, nor for a site that is away.
UNAWAITED = (*ERASING, LEAVE)


class LateError(RefusalError):
    """A site has not done in time what it was asked."""


class PartyCall:
    """Which site is to be asked to do its part of which run: see :class:`SiteCall`.

    It is no dataclass, so that Prefect does not look through the coordinator for results of tasks.
    """

    def __init__(self, coordinator: Coordinator, site: str) -> None:
        self.coordinator, self.site = coordinator, site


class Presence:
    """Which sites are waited for: those that are there, and have not been late too often.

    A site says hello to the exchange every few seconds, which leaves a file of its name in
    ``seen``. One that was late is asked again, as long as it says hello; after ``patience`` rounds
    it is only asked once it has said hello after having been left behind. That it was late is
    forgotten after ``patience`` good rounds in succession, up to the last thing that it was asked
    in them. One that is left behind again without these in between sits out the time that it had
    for a stage, then three times that, seven times, and so on: who says hello and does nothing
    else, or leaves out the last thing that it is asked, cannot make every round last until its
    deadline.
    """

    def __init__(self, seen: Path, runner: Parties) -> None:
        self._seen, self._patience, self._silence = seen, runner.patience, runner.silence
        self._deadline = runner.deadline
        self._lock = threading.Lock()
        self._late: dict[str, set[int]] = {}
        self._left_behind: dict[str, float] = {}
        # How often it was left behind, without enough good rounds in between.
        self._times: dict[str, int] = {}
        # The rounds after those in which it was late that it has done something in.
        self._good: dict[str, set[int]] = {}

    def late(self, site: str, round_number: int) -> None:
        """Note that a site was late in a round."""
        with self._lock:
            self._good.pop(site, None)
            rounds = self._late.setdefault(site, set())
            rounds.add(round_number)
            if len(rounds) >= self._patience and site not in self._left_behind:
                self._left_behind[site] = time.time()
                self._times[site] = self._times.get(site, 0) + 1

    def in_time(self, site: str, round_number: int) -> None:
        """Note that a site has done in time what it was asked in a round.

        That it was late before is forgotten once it goes on to another round after ``patience``
        ones: then it was not late in these, up to the last thing that it was asked. Were it
        forgotten after one, a site could hold up every second round.
        """
        with self._lock:
            known = site in self._late or site in self._times
            if not known or not round_number:
                return
            good = self._good.setdefault(site, set())
            good.add(round_number)
            if len(good) > self._patience:
                for told in (self._late, self._left_behind, self._times, self._good):
                    told.pop(site, None)

    def away(self, site: str) -> str | None:
        """Why a site is not waited for; ``None`` where it is."""
        hello = self._last_hello(site)
        if hello is not None and time.time() - hello > self._silence:
            return f"{site} is away: it has not said hello for {time.time() - hello:.0f} seconds"
        with self._lock:
            since, rounds = self._left_behind.get(site), len(self._late.get(site, ()))
            if since is None:
                return None
            late = f"{site} is away: it was late in {rounds} rounds"
            if hello is None or hello <= since:
                return f"{late}, and has not said hello since"
            out = self._deadline * (2 ** (self._times[site] - 1) - 1)
            if time.time() < since + out:
                return f"{late}, as it was before, and sits out {out:.0f} seconds"
            # It is there again, or still, and gets another chance.
            del self._left_behind[site], self._late[site]
            return None

    def _last_hello(self, site: str) -> float | None:
        """When a site last said hello, in seconds since the epoch; ``None`` for never."""
        try:
            return (self._seen / f"{site}.json").stat().st_mtime
        except OSError:
            return None


class PartiesPool(Executor):
    """Asks sites to do their stages, and waits for their words in threads that only wait.

    A site is asked for training, compression and protection at once, so that it need not wait for
    the coordinator between them; who submits one of the later two waits for the site's word on it.
    """

    def __init__(self, runner: Parties, seen: Path) -> None:
        self._runner = runner
        self._threads = ThreadPoolExecutor(THREADS, "site")
        self._numbers: dict[int, Numbers] = {}
        # For each site and stage, what it was asked along with an earlier stage.
        self._along: dict[tuple[str, str], Ask] = {}
        self._ended = threading.Event()
        self.presence = Presence(seen, runner)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_kwargs: Any) -> "Future[Any]":
        """Ask a site for a stage: ``fn`` is what would call it here, with the stage and a call."""
        del fn
        stage, call, *arguments = args
        name = stage if isinstance(stage, str) else stage.__name__
        return self._threads.submit(self._ask, name, call, arguments)

    def _ask(self, stage: str, call: PartyCall, arguments: list[Any]) -> None:
        site, coordinator = call.site, call.coordinator
        if stage not in UNAWAITED and (away := self.presence.away(site)):
            raise LateError(away)
        asked = self._was_asked(call, stage, arguments) or self._ask_with_what_follows(
            call, stage, arguments
        )
        if stage in UNAWAITED:
            return
        most = self._runner.joining if stage == "take_part" else self._runner.deadline
        self._wait(call, lambda: is_answered(coordinator, site, asked), stage, most, asked.round)
        hear_word(coordinator, site, asked)
        self.presence.in_time(site, asked.round)

    def _ask_with_what_follows(
        self, call: PartyCall, stage: str, arguments: Sequence[Argument]
    ) -> Ask:
        """Ask a site for a stage, and along with it for those that follow."""
        numbers = self._numbers.setdefault(call.coordinator.start.attempt, Numbers())

        def asked(name: str) -> Ask:
            return ask(call.coordinator, call.site, numbers.next(call.site), name, arguments)

        first = asked(stage)
        self._along.update({(call.site, each): asked(each) for each in FOLLOWING.get(stage, ())})
        return first

    def _was_asked(self, call: PartyCall, stage: str, arguments: Sequence[Argument]) -> Ask | None:
        """What a site was asked along with an earlier stage of the same attempt and round."""
        found = self._along.pop((call.site, stage), None)
        wanted = (call.coordinator.start.attempt, tuple(arguments))
        return found if found and (found.attempt, found.arguments) == wanted else None

    def _wait(
        self, call: PartyCall, there: Callable[[], bool], stage: str, most: float, number: int
    ) -> None:
        end, look = time.monotonic() + most, FIRST_LOOK
        while not there():
            if away := self.presence.away(call.site):
                raise LateError(away)
            if time.monotonic() > end:
                self.presence.late(call.site, number)
                raise LateError(
                    f"{call.site} has not done its part, {stage}, within {most:g} seconds, and "
                    "is left behind."
                )
            if self._ended.wait(look):
                raise ConsiliumError("The run has ended.")
            look = min(LONGEST_LOOK, look * 1.1)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for nobody any more."""
        self._ended.set()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
