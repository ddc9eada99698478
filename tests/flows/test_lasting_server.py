"""A server that is started again when it has ended."""

import subprocess
import sys
from contextlib import contextmanager

from flows import lasting_server
from flows.lasting_server import LastingServer
from flows.login import new_login
from flows.ports import listen
from tests.flows.test_site_service import wait_for


def test_a_server_that_is_killed_is_started_again_at_its_port_with_its_login(monkeypatch):
    started = []

    @contextmanager
    def server(name, listening, login, environment):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            started.append((process, listening.getsockname(), login))
            listening.close()
            try:
                yield process
            finally:
                process.kill()

    monkeypatch.setattr(lasting_server, "running_guarded", server)
    monkeypatch.setattr(lasting_server, "LOOK", 0.01)
    said = []
    lasting = LastingServer(listen(), new_login(), {}, said.append)
    try:
        wait_for(lambda: started)
        started[0][0].kill()
        wait_for(lambda: len(started) == 2)
        assert started[0][1:] == started[1][1:]
        assert said == ["The Prefect server of this site has ended; it is started again."]
    finally:
        lasting.end()
    assert len(started) == 2
    assert started[1][0].poll() is not None
