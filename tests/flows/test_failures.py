"""What the log of a flow run says of an error, as whoever watches a run reads it."""

import logging

import pytest
from prefect import flow
from prefect.exceptions import PrefectException
from prefect.logging.loggers import PrefectLogAdapter, get_logger

import flows.failures  # noqa: F401
from federated.errors import ConsiliumError
from flows.failures import LOGGER

SAID = "No site is enrolled: enrol one."


@pytest.fixture
def log():
    """What is logged of flow runs."""
    kept: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler, logger = Keep(), logging.getLogger(LOGGER)
    logger.addHandler(handler)
    yield kept
    logger.removeHandler(handler)


def end_by(error: Exception) -> None:
    """Log an error as Prefect's engine does, which says it twice."""
    told = PrefectLogAdapter(get_logger("prefect.flow_runs"), {})
    try:
        raise error
    except type(error) as caught:
        told.exception("Encountered exception during execution: %r", caught)
        told.error("Engine execution exited with unexpected exception", exc_info=True)


def test_what_a_person_can_mend_is_said_once_and_without_the_program(log):
    end_by(ConsiliumError(SAID))
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
