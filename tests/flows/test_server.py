import subprocess
import sys

import pytest

from federated.errors import ConsiliumError
from flows.server import free_port, running, wait_until_healthy


def test_a_server_that_ends_at_once_is_explained():
    health = f"http://127.0.0.1:{free_port()}/health"
    with running([sys.executable, "-c", "raise SystemExit(3)"]) as process:
        process.wait()
        with pytest.raises(ConsiliumError, match=r"The Toy server ended instead of .* to see why"):
            wait_until_healthy(process, health, "Toy")


def test_a_process_ends_with_its_block():
    with running([sys.executable, "-c", "input()"]) as process:
        pass
    assert isinstance(process, subprocess.Popen)
    assert process.poll() is not None
