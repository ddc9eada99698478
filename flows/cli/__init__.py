"""The command line: `consilium COMMAND`."""

import errno
import os
import signal
import sys
from typing import Annotated

import typer

# Before anything is imported that reads them. Nothing here phones home unless someone asks for it.
for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # The run's log is kept by Prefect; a person at a terminal sees the progress display instead.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    # That a task has ended well its state says, and no line of the log has to. Why one has failed
    # is an error, and is kept.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
    # The server that Prefect would start by itself answers everybody; ours is behind a guard.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
}.items():
    os.environ.setdefault(_name, _value)

import tasks.garbage  # noqa: F401
from flows.proxies import spare_loopback

spare_loopback(os.environ)

from flows.cli import run  # noqa: F401

# isort: split
# In the order of the help: what a person starts with first.
from federated.errors import ConsiliumError
from flows.cli import (  # noqa: F401
    consortium,
    coordinator,
    data,
    keys,
    ledger,
    own_data,
    predict,
    release,
    report,
    service,
    site,
    sites,
    statistics,
    watch,
)
from flows.cli.options import app
from flows.going_on import how_to_go_on, nothing_begun


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if debug:
        os.environ["CONSILIUM_DEBUG"] = "1"


# What Typer makes of a KeyboardInterrupt.
INTERRUPTED = 130
# What pydantic makes of anything that comes up while it writes a value.
WHILE_WRITING = "PydanticSerializationError"


def main() -> None:
    """Run the command line; a mistake is answered in one paragraph."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup leaves it ignored
            signal.signal(number, _stop)
    nothing_begun()
    try:
        app()
    except ConsiliumError as error:
        if os.environ.get("CONSILIUM_DEBUG"):
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print(f"Stopped. {how_to_go_on()}".strip(), file=sys.stderr)
        raise
    except Exception as error:
        if os.environ.get("CONSILIUM_DEBUG"):
            raise
        if _was_interrupted(error):
            print(f"Stopped. {how_to_go_on()}".strip(), file=sys.stderr)
            sys.exit(INTERRUPTED)
        said = (
            _of_this_machine(error)
            or _of_a_server(error)
            or (
                f"this should not have happened ({type(error).__name__}: {error}). Run the "
                "command again as `consilium --debug …` and report what it prints."
            )
        )
        print(f"Error: {said}", file=sys.stderr)
        sys.exit(1)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error came up while a signal to end was being handled.

    Prefect handles a ``KeyboardInterrupt`` as a crash of the task at hand, and fails at that where
    the signal came before the task had a run to mark. Pydantic keeps of what comes up while it
    writes a value no more than its name, in the text of its own error.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        if type(error).__name__ == WHILE_WRITING and ": KeyboardInterrupt" in str(error):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


# What a machine refuses, whatever the program does: rights, space, names.
REFUSALS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO),
)


def _of_this_machine(error: Exception) -> str:
    """A file or folder that the machine does not let us use, in words; ``""`` otherwise."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS:
        return ""
    where = f"{error.filename} cannot be used" if error.filename else "A file cannot be written"
    return (
        f"{where}: {error.strerror}. Make it readable and writable to you, free some space, or "
        "name another folder (--runs, data.root, CONSILIUM_HOME, PREFECT_HOME)."
    )


def _of_a_server(error: Exception) -> str:
    """A Prefect server that does not answer any more, in words; ``""`` otherwise."""
    if type(error).__module__.split(".")[0] != "httpx" and "Failed to reach API" not in str(error):
        return ""
    api = os.environ.get("PREFECT_API_URL")
    which = f"that PREFECT_API_URL names, {api}," if api else "of this run"
    return (
        f"the Prefect server {which} does not answer any more ({error}). Start it again. "
        f"{how_to_go_on()}"
    ).strip()


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
