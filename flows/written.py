"""Whether Prefect's server has written down the graph of a run, before whoever told it goes.

What a process tells of its task runs are events, which it sends one after the other, and which the
server keeps in memory until it writes several of them down at once. So that after a burst of some
hundred task runs a server that ended along with the run had not written all of them, and nobody was
told. Here the number of task runs that were made is compared with those that are written down.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.settings import get_current_settings

from flows.progress import tell

# In seconds: how long it is waited at most, and between two looks.
LIMIT, LOOK = 60.0, 0.05
# The states after which more is told of a task run.
UNFINISHED = ("Scheduled", "Pending", "Running", "Retrying", "AwaitingRetry")
Say = Callable[[str], None]


@dataclass
class _Graphs:
    """The flow runs of this process: how many task runs each has made.

    ``later`` is whether somebody waits once several flow runs have ended.
    """

    made: dict[UUID, int] = field(default_factory=dict)
    later: bool = False


_graphs = _Graphs()


@contextmanager
def counted_task_runs() -> Iterator[None]:
    """The body of a flow, whose task runs are counted when it ends.

    It is then waited until they are written down, if nobody does so later.
    """
    try:
        yield
    except Exception:
        _note(tell)
        raise
    _note(tell)


@contextmanager
def written_down(say: Say) -> Iterator[None]:
    """Flows that are run in a block, and which are written down once it has ended.

    It waits for :data:`LIMIT` seconds at most; ``say`` is told what is not there then.
    """
    before, _graphs.later = _graphs.later, True
    try:
        yield
    except Exception:
        _wait(say)
        raise
    finally:
        _graphs.later = before
    _wait(say)


def _note(say: Say) -> None:
    """Count the task runs of the flow run that this is, if it is one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    # For each task, the number of its newest run, from 0.
    numbers = context.task_run_dynamic_keys.values()
    _graphs.made[context.flow_run.id] = sum(1 + n for n in numbers if isinstance(n, int))
    if not _graphs.later:
        _wait(say)


def _wait(say: Say) -> None:
    made, _graphs.made = _graphs.made, {}
    if not _are_written_down():
        return
    until = time.monotonic() + LIMIT
    for flow_run, expected in made.items():
        try:
            written, unfinished = _wait_for(flow_run, expected, until)
        except (httpx.HTTPError, OSError, PrefectException) as error:
            say(f"warning: whether Prefect has the graph of this run cannot be asked ({error})")
            return
        if written < expected or unfinished:
            say(
                f"warning: within {LIMIT:g} seconds Prefect's server has written down {written} of "
                f"{expected} task runs of this run, and the end of {written - unfinished}. Its "
                "pages show the graph without the rest; the run itself and its record are whole."
            )


def _are_written_down() -> bool:
    """Whether the server is one that writes down task runs, as far as is known here.

    Prefect Cloud does so as well, and ends with nobody.
    """
    settings = get_current_settings()
    return not settings.api.key and settings.server.services.task_run_recorder.enabled


def _wait_for(flow_run: UUID, expected: int, until: float) -> tuple[int, int]:
    """Wait until the task runs of a flow run are written down.

    Returns:
        How many are, and how many of these as they were before they ended.
    """
    with get_client(sync_client=True) as client:

        def count(**states: object) -> int:
            asked: dict[str, object] = {"flow_runs": {"id": {"any_": [str(flow_run)]}}}
            if states:
                asked["task_runs"] = {"state": states}
            return int(client.request("POST", "/task_runs/count", json=asked).json())

        while True:
            written, unfinished = count(), count(name={"any_": list(UNFINISHED)})
            if (written >= expected and not unfinished) or time.monotonic() >= until:
                return written, unfinished
            time.sleep(LOOK)
