"""`consilium consortium up`: one command that starts a consortium, runs it, and leaves nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml

from federated.files import read_json
from tests.conftest import PROJECT, TINY_PARAMS

pytestmark = pytest.mark.system
MOST_S = 900


def left_of(folder: Path) -> list[str]:
    """The processes of this machine that work below a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return found


def test_one_command_runs_a_consortium_of_processes_and_leaves_none(project):
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS))
    place = project / "tried"
    parties = [place / "coordinator", *(place / "sites" / f"site-0{number}" for number in (0, 1))]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_T"))}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flows.program", "consortium", "up", "--experiment", "tiny"),
            *("--sites", "2", "--rounds", "1", "--folder", str(place)),
        ],
        cwd=project, env=kept | {"PYTHONPATH": str(PROJECT)}, timeout=MOST_S, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = done.stdout
    assert done.returncode == 0, said
    # All of them in one terminal, each line with whose it is; what is told to another one is true.
    begun = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert {"coordinator", "site-00", "site-01", "run"} <= begun
    assert "consilium watch tiny" in said
    assert f"its homes, logs and runs are in {place}" in said
    # Homes of their own, that nobody else can open, with a key each and the site's own data.
    keys = [next(party.rglob("identity.key")).read_bytes() for party in parties]
    assert len(set(keys)) == 3
    assert all(party.stat().st_mode & 0o077 == 0 for party in (place, *parties))
    held = [next(party.glob("data/medmnist/*.npz")).read_bytes() for party in parties[1:]]
    assert held[0] != held[1]
    assert not list(parties[0].rglob("*.npz"))
    url = urlsplit(json.loads((place / "consilium-kit.json").read_text())["url"])
    assert (url.scheme, url.hostname) == ("https", "127.0.0.1")
    (summary,) = place.glob("runs/tiny/2*/summary.json")
    found = read_json(summary)
    assert (found["sites"], found["rounds_done"]) == (["site-00", "site-01"], 1)
    assert left_of(place) == []
    shutil.rmtree(place)
