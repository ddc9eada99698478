"""What the log of a run says, as whoever watches it reads it."""

import io
import logging
import uuid
from datetime import UTC, datetime

import pytest
from prefect import flow
from prefect.cli.flow_runs_watching import FlowRunFormatter
from prefect.client.schemas.objects import Log
from prefect.exceptions import PrefectException
from prefect.logging.loggers import PrefectLogAdapter, get_logger
from rich.console import Console

from federated.errors import ConsiliumError
from flows.run_log import LOGGERS, without_marks

SAID = "No site is enrolled: enrol one."


@pytest.fixture
def log():
    """What is logged of flow runs and task runs."""
    kept: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keep()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield kept
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)


def end_by(error: Exception, name: str = LOGGERS[0]) -> None:
    """Log an error as Prefect's engine does, which says it twice."""
    told = PrefectLogAdapter(get_logger(name), {})
    try:
        raise error
    except type(error) as caught:
        told.exception("Encountered exception during execution: %r", caught)
        told.error("Engine execution exited with unexpected exception", exc_info=True)


@pytest.mark.parametrize("name", LOGGERS)
def test_what_a_person_can_mend_is_said_once_and_without_the_program(log, name):
    end_by(ConsiliumError(SAID), name)
    (record,) = log
    assert (record.levelname, record.getMessage(), record.exc_info) == ("ERROR", SAID, None)
    assert logging.Formatter().format(record) == SAID


def test_a_fault_of_the_program_keeps_its_traceback(log, monkeypatch):
    end_by(ValueError("x"))
    assert [bool(record.exc_info) for record in log] == [True, True]
    log.clear()
    monkeypatch.setenv("CONSILIUM_DEBUG", "1")
    end_by(ConsiliumError(SAID))
    assert [bool(record.exc_info) for record in log] == [True, True]


def test_so_it_is_with_a_flow_that_prefect_runs(log, prefect_server):
    @flow(name="fails")
    def fails() -> None:
        raise ConsiliumError(SAID)

    with pytest.raises((ConsiliumError, PrefectException)):
        fails()
    assert SAID in [record.getMessage() for record in log]
    assert not any(record.exc_info for record in log)


def watched(text: str) -> str:
    """What `--watch` prints of a line of a log."""
    line = Log(
        name="x", level=20, message=text, timestamp=datetime.now(UTC), flow_run_id=uuid.uuid4()
    )
    console = Console(file=io.StringIO(), width=500, force_terminal=False)
    console.print(FlowRunFormatter().format(line))
    return console.file.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "clinic-a drops out: [/bold] is no end of anything",
        "clinic-a drops out: [link=https://example.org]why[/link]",
        "clinic-a drops out: [[/x]] \\[/x] [@click=x]y[/]",
        "local-train[clinic-a] round 2 is late",
    ],
)
def test_what_a_site_says_is_text_to_whoever_watches(log, text):
    told = PrefectLogAdapter(get_logger(LOGGERS[0]), {})
    told.info(text)
    told.info("%s", text)
    end_by(ValueError(text))
    for record in log[:2]:
        assert record.getMessage() == without_marks(text)
    for record in log:
        whole = logging.Formatter().format(record)
        assert whole == without_marks(whole)
        # All of it is there, but for spaces, and for a backslash where Rich takes it for its own.
        letters = "".join(whole.split()).replace("\\", "")
        assert letters in "".join(watched(whole).split()).replace("\\", "")


def test_nothing_that_is_logged_commands_the_terminal_of_whoever_watches(log):
    """Of a :class:`ConsiliumError` its text has none; of an error nobody foresaw it may have."""
    text = "a site says \x1b]0;x\x07\x1b[2J \u202e\n\tin two lines"
    told = PrefectLogAdapter(get_logger(LOGGERS[0]), {})
    told.info("%s", text)
    end_by(ValueError(text))
    assert len(log) == 3
    for record in log:
        whole = logging.Formatter().format(record)
        assert "\\x1b]0;x\\x07\\x1b[2J" in whole
        assert whole.replace("\n", "").replace("\t", "").isprintable()
    assert log[0].getMessage().endswith("\n\tin two lines")


def test_what_is_no_mark_stays_as_it_is():
    for text in ('overrides=["rounds=3"]', "[1, 2]", "[A]", "a [b", SAID):
        assert without_marks(text) == text
