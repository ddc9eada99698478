"""Servers as processes of our own: Prefect's temporary one, and those of `consilium serve`."""

import atexit
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
    get_current_settings,
    temporary_settings,
)

from federated.errors import ConsiliumError
from federated.files import PRIVATE
from flows.guarded_server import SECRET, SOCKET
from flows.login import Login, new_login
from flows.ports import HOST, listen, port_of
from tasks.new_database import PREFECT, begin_database

STARTUP_TIMEOUT_S = 300
# The niceness of the temporary server while workers train: the larger, the more it gives way.
BEHIND = 10
_embedded: list["subprocess.Popen[bytes]"] = []
# Services that look every few seconds for what there is none of where nothing is deployed.
WITHOUT_DEPLOYMENTS = {
    f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false"
    for name in (
        *("SCHEDULER", "LATE_RUNS", "FOREMAN", "REPOSSESSOR", "CLEANUP_RECONCILER"),
        *("CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS"),
    )
}
# `prefect deployment run … --watch` shows the log of a run as it comes, and so why one has failed;
# by itself the server sends nobody a line of it.
WITH_DEPLOYMENTS = {
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
}
# As for Prefect's own temporary server: no pages, and only the services that a run needs.
TEMPORARY = WITHOUT_DEPLOYMENTS | {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    # Block types are what its pages show. Nor is it noted down that they are registered, or the
    # next server of that PREFECT_HOME, which has pages, would go without.
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
}


def configured_api() -> str | None:
    """The Prefect API that the environment or the active profile names; ``None`` without one."""
    url = get_current_settings().api.url
    return str(url) if url else None


def start_embedded_server() -> Callable[[], None]:
    """Start a temporary Prefect server unless an API is configured; it ends with this process.

    It returns at once, with a function that waits for the server, to be called before a flow
    starts: the server needs several seconds in a process of its own, in which this one can import
    and check what the run needs. (Prefect would start one by itself, but only when a flow begins,
    it would import the whole server into this process too, and it would answer everybody on the
    machine.)

    The server's login is known to it and to this process alone: the flow and its tasks run here,
    and the workers that train have nothing to say to Prefect.
    """
    if api := configured_api():
        return partial(require_let_in, api)
    listening, login = listen(), new_login()
    api = f"http://{HOST}:{port_of(listening)}/api"
    lifetime = ExitStack()
    # Registered before Prefect registers its own, and so run after: the last log lines and task
    # states are sent when the process exits, and the server must still be there for them.
    atexit.register(lifetime.close)
    process = lifetime.enter_context(running_guarded("prefect", listening, login, TEMPORARY))
    _embedded.append(process)
    lifetime.enter_context(temporary_settings(updates=client_settings(api, login)))
    return lambda: wait_until_healthy(process, f"{api}/health", "Prefect")


def let_training_go_first() -> None:
    """Have the temporary server of this process, if it has one, give way to what trains.

    It writes down what task runs tell it, which nobody waits for: it does so while a worker waits,
    instead of taking a share of the processors from those that train.
    """
    for process in _embedded:
        give_way(process)


def give_way(server: "subprocess.Popen[bytes]") -> None:
    """Have a server that writes down what happens give way to whatever else runs on the machine."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PGRP, server.pid, BEHIND)


def require_let_in(api: str) -> None:
    """Refuse a configured API that refuses this process.

    One of `consilium serve` does so after a new start. Whether the API answers at all is not
    checked here.

    Raises:
        ConsiliumError: it asks for another login than ``PREFECT_API_AUTH_STRING``.
    """
    settings = get_current_settings().api
    if settings.key:
        return  # Prefect Cloud's, which has no login of this kind
    secret = settings.auth_string
    user, _, password = (secret.get_secret_value() if secret else "").partition(":")
    with suppress(httpx.HTTPError, OSError):
        auth = (user, password) if secret else None
        trusted = ssl.create_default_context(cafile=settings.ssl_cert_file)
        asked = httpx.get(f"{api}/admin/version", auth=auth, timeout=5, verify=trusted)
        if asked.status_code == 401:
            given = "another one is set" if secret else "none is set"
            raise ConsiliumError(
                f"The Prefect server at {api} asks for a login (PREFECT_API_AUTH_STRING), and "
                f'{given} here. Call eval "$(consilium serve --env)" in this terminal if it is '
                "that of `consilium serve`, or unset PREFECT_API_URL to use a server of its own."
            )


def client_settings(api: str, login: Login) -> dict[Any, str | bool]:
    """Prefect's settings for whoever uses a server that was started here."""
    return {
        PREFECT_API_URL: api,
        PREFECT_API_AUTH_STRING: login.auth_string,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: True,
    }


@contextmanager
def running_guarded(
    name: str,
    listening: socket.socket,
    login: Login,
    environment: dict[str, str] | None = None,
    log: Path | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server of ``guarded_server`` at a socket, which is then closed in this process.

    Args:
        name: of the server.
        listening: the socket.
        login: who is let in.
        environment: what its process gets beside this one's environment.
        log: the file that gets what it says; nobody does if left out.
    """
    number, given = listening.fileno(), environment or {}
    handed = {SECRET: login.secret, SOCKET: str(number)}
    if name == "prefect" and has_newest_tables(given):
        handed["PREFECT_SERVER_DATABASE_MIGRATE_ON_START"] = "false"
    command = ["flows.guarded_server", name]
    with running(command, given | handed, [number], log) as process:
        listening.close()
        yield process


def has_newest_tables(environment: Mapping[str, str]) -> bool:
    """Whether Prefect's server need not look for migrations; a new database begins with its tables.

    This is for the process that starts it, which has read Prefect's settings: in its own they are
    settled for good once they are asked for, and they are to have the login.

    Args:
        environment: what the server's process gets beside this one's.
    """
    named = next((environment[name] for name in PREFECT.variables if environment.get(name)), None)
    if named is None:
        usual = get_current_settings().server.database.connection_url
        named = usual.get_secret_value() if usual else ""
    return begin_database(PREFECT, named)


@contextmanager
def running(
    command: Sequence[str],
    environment: dict[str, str] | None = None,
    inherited: Sequence[int] = (),
    log: Path | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a module, quietly, with all that it starts, until the block or this process ends.

    It is a process group of its own: what stops this one, as Ctrl-C in a terminal, must leave it
    the time to tell Prefect's server so. Its standard input is a pipe that ends with this process,
    however this one ends. It has the file descriptors ``inherited``. What it says is in ``log``, a
    file that is its owner's alone and begins anew; without one nobody reads it.
    """
    said = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    try:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [sys.executable, "-m", "flows.ends_with_parent", *command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            process_group=0,
            pass_fds=inherited,
        )
    finally:
        os.close(said)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_healthy(
    process: "subprocess.Popen[bytes]", health: str, name: str, log: Path | None = None
) -> None:
    """Wait for a server to answer; ``log`` is the file that has what it says.

    Raises:
        ConsiliumError: the process ended, or five minutes passed.
    """
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    # One client: each would read the certificates of all authorities anew, which no answer needs.
    with httpx.Client(timeout=2, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as client:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.HTTPError):
                if client.get(health).status_code == 200:
                    return
            time.sleep(0.1)
    state = "ended" if process.poll() is not None else "does not answer"
    module = " ".join(str(part) for part in cast(Sequence[str], process.args)[3:])
    why = f"Read {log} to see why." if log else f"Run `python -m {module}` to see why."
    raise ConsiliumError(f"The {name} server {state} instead of coming up at {health}. {why}")
