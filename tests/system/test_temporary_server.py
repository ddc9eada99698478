"""The Prefect server that a run starts for itself answers that run alone."""

import json
import subprocess
from contextlib import suppress

import httpx
import psutil
import pytest

from flows.guarded_server import SECRET
from tests.system.attacks import ATTACKS, Target, expected, statuses
from tests.system.conftest import arguments, files_with

pytestmark = pytest.mark.system


def server_of(run: subprocess.Popen) -> psutil.Process:
    """The process of a run's Prefect server, once it is there."""
    while run.poll() is None:
        for child in psutil.Process(run.pid).children():
            with suppress(psutil.Error):
                if "flows.guarded_server" in child.cmdline():
                    return child
    raise AssertionError(f"the run ended without a server: {run.stdout.read()}")


def environments(run: subprocess.Popen, secret: str) -> set[str]:
    """The command lines of a run's processes in whose environment the secret is."""
    found = set()
    with suppress(psutil.Error):
        for process in psutil.Process(run.pid).children(recursive=True):
            with suppress(psutil.Error):
                if any(secret in value for value in process.environ().values()):
                    found.add(" ".join(process.cmdline()))
    return found


def test_it_refuses_every_attack_and_its_secret_is_kept(
    copy, start, tmp_path, consilium_home, prepared_tiny
):
    # A home in which Prefect has no database yet.
    new = str(tmp_path / "new")
    workers = ["--set", "runner.name=processes", "--set", "runner.workers=1"]
    known = ["--prepared", prepared_tiny]
    run = start("consilium", "run", "demo", "--rounds", "1", *known, *workers, PREFECT_HOME=new)
    server = server_of(run)
    secret = server.environ()[SECRET]
    (listening,) = {c.laddr.port for c in server.net_connections("inet") if c.status == "LISTEN"}
    url = f"http://127.0.0.1:{listening}"
    target = Target(url, "/api/flow_runs/filter", ("consilium", secret))
    assert statuses(target) == {attack: expected(attack) for attack in ATTACKS}
    with httpx.Client(base_url=url, auth=target.credentials, trust_env=False) as client:
        assert client.get("/api/admin/version").status_code == 200
    seen, knowing = arguments(), set()
    while run.poll() is None:
        seen |= arguments()
        knowing |= environments(run, secret)
        with suppress(subprocess.TimeoutExpired):
            run.wait(timeout=0.5)
    assert run.returncode == 0, run.stdout.read()
    assert secret not in run.stdout.read()
    # The server's alone: what trains is not told.
    assert all("flows.guarded_server" in line for line in knowing)
    assert any("multiprocessing.forkserver" in line for line in seen)
    assert not [line for line in seen if secret in line]
    assert not files_with(secret, tmp_path, consilium_home)
    summary = json.loads((copy / "runs" / "demo" / "latest" / "summary.json").read_text())
    assert summary["rounds_done"] == 1
