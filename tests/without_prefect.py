"""Flows and tasks called as the functions that they are: no server, no engine, no threads.

For tests in which it is not the point that Prefect runs the graph: what it does around a task (its
run is made, renamed, told to the server; its arguments are searched for futures) takes as long as
what a small task does. Every flow has tests that go through Prefect as well.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import prefect.logging
import pytest
from prefect import Flow, Task
from prefect.utilities.annotations import quote

import flows.graph
import flows.progress
import tasks.round_table


class Called:
    """In place of a future: a task that has run, or has not because one before it failed."""

    def __init__(
        self, task: "Task[Any, Any]", after: "Sequence[Called]", arguments: Any, named: Any
    ) -> None:
        self.value, self.error = None, next((each.error for each in after if each.error), None)
        if self.error is None:
            try:
                self.value = task.fn(*arguments, **named)
            except Exception as error:
                self.error = error

    def result(self) -> Any:
        """What the task returns.

        Raises:
            Exception: what the task raises, or one that it was to wait for.
        """
        if self.error:
            raise self.error
        return self.value

    def wait(self) -> None:
        """Nothing is left to wait for."""


def unquoted(value: Any) -> Any:
    """What a task is handed: of what is not to be searched, the thing itself."""
    return value.unquote() if isinstance(value, quote) else value


@contextmanager
def without_prefect() -> Iterator[None]:
    """Flows and tasks are plain functions, and a task that is submitted runs at once."""

    def call_flow(flow: "Flow[Any, Any]", *given: Any, **named: Any) -> Any:
        return flow.fn(*given, **named)

    def call_task(task: "Task[Any, Any]", *given: Any, wait_for: Any = None, **named: Any) -> Any:
        return task.fn(*map(unquoted, given), **named)

    def submit(
        task: "Task[Any, Any]",
        *given: Any,
        wait_for: Any = (),
        return_state: bool = False,
        **named: Any,
    ) -> Called:
        return Called(task, wait_for, tuple(map(unquoted, given)), named)

    # A run has a logger of its own, which sends the server what it is told.
    logger = prefect.logging.get_logger("without_prefect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flow, "__call__", call_flow)
        patch.setattr(Task, "__call__", call_task)
        patch.setattr(Task, "submit", submit)
        for module in (flows.graph, flows.progress):
            patch.setattr(module, "get_run_logger", lambda: logger)
        # It would start a server of its own, for a table that nobody looks at.
        patch.setattr(tasks.round_table, "create_table_artifact", lambda **_: None)
        yield
