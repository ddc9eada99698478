"""Whether Prefect's server has written down the graph of a run, before whoever told it goes.

What a process tells of its task runs are events, which it sends one after the other, and which the
server keeps in memory until it writes several of them down at once. So that after a burst of some
hundred task runs a server that ended along with the run had not written all of them, and nobody was
told. Here the task runs that were told of are counted, and compared with those written down.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event
from prefect.events.worker import EventsWorker
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from flows.progress import tell

# In seconds: how long it is waited at most, and between two looks.
LIMIT, LOOK = 60.0, 0.05
# The states after which more is told of a task run.
UNFINISHED = ("Scheduled", "Pending", "Running", "Retrying", "AwaitingRetry")
TASK_RUN = "prefect.task-run."
# How many task runs are asked for at once.
ASKED = 500
Say = Callable[[str], None]


@dataclass
class _Told:
    """The task runs that this process has told of, by id, since it last waited for them.

    ``later`` is whether somebody waits once several flow runs have ended.
    """

    task_runs: set[str] = field(default_factory=set)
    later: bool = False


_told = _Told()


def keep(event: Event) -> None:
    """Keep the task run that an event is of, if it is of one."""
    if event.resource.id.startswith(TASK_RUN):
        _told.task_runs.add(event.resource.id.removeprefix(TASK_RUN))


@contextmanager
def counted_task_runs() -> Iterator[None]:
    """The body of a flow, whose task runs are counted.

    When it has ended it is waited until they are written down, if nobody does so later.
    """
    _begin_to_count()
    try:
        yield
    except Exception:
        _wait_now(tell)
        raise
    _wait_now(tell)


@contextmanager
def written_down(say: Say) -> Iterator[None]:
    """Flows that are run in a block, and which are written down once it has ended.

    It waits for :data:`LIMIT` seconds at most; ``say`` is told what is not there then.
    """
    before, _told.later = _told.later, True
    try:
        yield
    except Exception:
        _wait(say)
        raise
    finally:
        _told.later = before
    _wait(say)


def _begin_to_count() -> None:
    if not _are_written_down():
        return
    worker = EventsWorker.instance()
    send = worker.send
    if "send" in vars(worker):
        return

    def send_and_keep(event: Event) -> None:
        keep(event)
        send(event)

    # Prefect sends nothing by a worker or a client of another class.
    vars(worker)["send"] = send_and_keep


def _wait_now(say: Say) -> None:
    if not _told.later:
        _wait(say)


def _wait(say: Say) -> None:
    if not _are_written_down():
        return
    until = time.monotonic() + LIMIT
    if not _all_are_sent():
        say(
            f"warning: Prefect's server has not taken all that it was told of this run within "
            f"{LIMIT:g} seconds. Its pages lack the rest; the run itself and its record are whole."
        )
    task_runs, _told.task_runs = sorted(_told.task_runs), set()
    if not task_runs:
        return
    try:
        written, unfinished = _wait_for(task_runs, until)
    except (httpx.HTTPError, OSError, PrefectException) as error:
        say(f"warning: whether Prefect has the graph of this run cannot be asked ({error})")
        return
    if written < len(task_runs) or unfinished:
        say(
            f"warning: within {LIMIT:g} seconds Prefect's server has written down {written} of "
            f"{len(task_runs)} task runs of this run, and the end of {written - unfinished}. "
            "Its pages lack the rest; the run itself and its record are whole."
        )


def _are_written_down() -> bool:
    """Whether the server is one that writes down task runs, as far as is known here.

    Prefect Cloud does so as well, and ends with nobody.
    """
    settings = get_current_settings()
    recorder = settings.server.services.task_run_recorder
    return bool(settings.api.url) and not settings.api.key and recorder.enabled


def _all_are_sent() -> bool:
    """Wait until all events have been sent; whether they have."""
    sending = threading.Thread(target=EventsWorker.instance().wait_until_empty, daemon=True)
    sending.start()
    sending.join(LIMIT)
    return not sending.is_alive()


def _wait_for(task_runs: Sequence[str], until: float) -> tuple[int, int]:
    """Wait until task runs are written down as they ended.

    Returns:
        How many are, and how many of these as they were before they ended.
    """
    parts = [task_runs[start : start + ASKED] for start in range(0, len(task_runs), ASKED)]
    with get_client(sync_client=True) as client:

        def count(**states: object) -> int:
            state = {"state": states} if states else {}
            asked = [{"task_runs": {"id": {"any_": part}, **state}} for part in parts]
            answers = [client.request("POST", "/task_runs/count", json=each) for each in asked]
            return sum(int(answer.json()) for answer in answers)

        while True:
            written, unfinished = count(), count(name={"any_": list(UNFINISHED)})
            if (written >= len(task_runs) and not unfinished) or time.monotonic() >= until:
                return written, unfinished
            time.sleep(LOOK)
