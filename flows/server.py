"""The embedded Prefect server, and warm imports while it starts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

STARTUP_TIMEOUT_S = 120


@contextmanager
def embedded_server() -> Iterator[None]:
    """Start Prefect's own temporary server unless an API is configured.

    The server needs several seconds in a process of its own; what a run imports is imported
    meanwhile. The server ends with this process.
    """
    if get_current_settings().api.url:
        yield
        return
    failure: list[Exception] = []

    def start() -> None:
        try:
            SubprocessASGIServer().start(timeout=STARTUP_TIMEOUT_S)
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    import flows.round  # noqa: F401 - torch, MLflow and the rest
    from tasks.validate import preload

    preload()
    thread.join()
    if failure:
        raise failure[0]
    yield
