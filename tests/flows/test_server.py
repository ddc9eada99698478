import os
import select
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, HTTPServer

import psutil
import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    temporary_settings,
)

from federated.errors import ConsiliumError
from flows import server
from flows.server import has_newest_tables, running, start_embedded_server, wait_until_healthy
from tests.conftest import PROJECT
from tests.ports import free_port


def test_a_server_that_ends_at_once_is_explained():
    health = f"http://127.0.0.1:{free_port()}/health"
    with running(["no_such_module"]) as process:
        process.wait()
        said = r"The Toy server ended instead of .*`python -m no_such_module` to see why"
        with pytest.raises(ConsiliumError, match=said):
            wait_until_healthy(process, health, "Toy")


def test_a_module_ends_with_who_started_it(tmp_path):
    """However that ends: here it is killed."""
    module = tmp_path / "endless.py"
    module.write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    parent = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'flows.ends_with_parent', 'endless']\n"
        "subprocess.Popen(command, stdin=subprocess.PIPE)\n"
        "time.sleep(60)\n"
    )
    paths = os.pathsep.join([str(PROJECT), str(tmp_path)])
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    # The pipe closes when the child, which has it too, is gone.
    ended, _, _ = select.select([process.stdout], [], [], 10)
    if not ended:
        os.kill(child, signal.SIGKILL)
    assert ended


def test_a_process_ends_with_its_block():
    with running(["http.server", str(free_port())]) as process:
        pass
    assert isinstance(process, subprocess.Popen)
    assert process.poll() is not None


class AsksForALogin(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        right = "Basic " + b64encode(b"consilium:right").decode()
        self.send_response(200 if self.headers["Authorization"] == right else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(("given", "said"), [("consilium:old", "another one"), (None, "none")])
def test_a_configured_server_that_wants_another_login_is_named(given, said):
    with HTTPServer(("127.0.0.1", 0), AsksForALogin) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}/api"
        with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: given}):
            wait = start_embedded_server()
            with pytest.raises(ConsiliumError, match=f"asks for a login .*{said} is set here"):
                wait()
        with temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: "consilium:right"}):
            start_embedded_server()()
        server.shutdown()


def test_prefect_starts_no_server_of_its_own(tmp_path):
    """That one would answer every user of the machine and every page in a browser."""
    asks = (
        "import flows.cli\n"
        "from prefect.client.orchestration import get_client\n"
        "get_client(sync_client=True)\n"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    asked = subprocess.run(
        [sys.executable, "-c", asks],
        env=kept | {"PYTHONPATH": str(PROJECT), "PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "No Prefect API URL provided" in asked.stderr


def test_a_new_database_of_prefect_begins_with_its_tables(tmp_path, empty_prefect):
    database = tmp_path / "new" / "prefect.db"
    address = f"sqlite+aiosqlite:///{database}"
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: address}):
        assert has_newest_tables({})
        assert database.read_bytes() == empty_prefect.read_bytes()
        # What the server is told goes before the settings of who starts it.
        named = tmp_path / "named.db"
        told = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{named}"}
        assert has_newest_tables(told)
        assert named.is_file()
        elsewhere = dict.fromkeys(told, "postgresql+asyncpg://user@host/name")
        assert not has_newest_tables(elsewhere)


def test_a_temporary_server_gives_way_while_workers_train(monkeypatch):
    with subprocess.Popen(["sleep", "60"], process_group=0) as running:
        monkeypatch.setattr(server, "_embedded", [running])
        before = psutil.Process().nice()
        server.let_training_go_first()
        assert psutil.Process(running.pid).nice() == server.BEHIND
        assert psutil.Process().nice() == before
        running.kill()
        running.wait()
        server.let_training_go_first()  # one that has ended is no error
