"""A Prefect server of a process's own that is started again whenever it has ended.

A site's process runs for months. Its Prefect is what the hospital watches it by, and nothing that a
run needs: that its server was ended, by the machine's want of memory for instance, must not keep
the site out of every run until somebody looks.
"""

import socket
import subprocess
import threading
from collections.abc import Callable

from flows.login import Login
from flows.ports import HOST, port_of
from flows.server import WITHOUT_DEPLOYMENTS, give_way, running_guarded, wait_until_healthy

# In seconds: how often it is looked at, and the longest pause before it is started once more.
LOOK, LONGEST = 0.5, 60.0


class LastingServer:
    """Prefect's server behind a guard, at one loopback port and with one login, until :meth:`end`.

    The port is held here, so that nobody else can take it while no server answers there: requests
    wait for the next one. It gives way to what the site trains, and nothing can be deployed there.

    Args:
        listening: the socket, which is closed at the end.
        login: whom it lets in.
        environment: of its processes, beside this one's.
        say: tells a person something.
    """

    def __init__(
        self,
        listening: socket.socket,
        login: Login,
        environment: dict[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._say, self._environment = say, WITHOUT_DEPLOYMENTS | environment
        self._listening, self.login = listening, login
        self.api = f"http://{HOST}:{port_of(listening)}/api"
        self._ended, self._started = threading.Event(), threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def wait_until_healthy(self) -> None:
        """Wait until the server answers.

        Raises:
            ConsiliumError: it ended, or two minutes passed.
        """
        self._started.wait()
        assert self.process
        wait_until_healthy(self.process, f"{self.api}/health", "Prefect")

    def end(self) -> None:
        """End the server, for good."""
        self._ended.set()
        self._thread.join()
        self._listening.close()

    def _keep(self) -> None:
        pause = LOOK
        while not self._ended.is_set():
            handed = self._listening.dup()
            with running_guarded("prefect", handed, self.login, self._environment) as self.process:
                give_way(self.process)
                self._started.set()
                while self.process.poll() is None and not self._ended.wait(LOOK):
                    pass
            if not self._ended.is_set():
                self._say("The Prefect server of this site has ended; it is started again.")
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST)
