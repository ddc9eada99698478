"""Aggregating more sites takes no more memory: one sum, and the payload that is being added."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from federated.config import load_experiment
from federated.data.dataset import LocatedFile
from federated.data.partition import Partition, write_partition
from federated.run_folder import RunFolder, new_run
from federated.update import Layout, Payload, RoundState, write_memory, write_payload, write_state

VALUES = 2_000_000
MODEL_MB = 4 * VALUES / 2**20

MEASURE = """
import sys
from pathlib import Path
from federated.coordinator import aggregate
from federated.run_folder import RunFolder
from federated.site import peak_rss_mb
folder = RunFolder(Path(sys.argv[1]))
aggregate(folder, 1, folder.sites())
print(peak_rss_mb())
"""


def run_with(sites: int, root: Path) -> RunFolder:
    """A run in which every site has sent its payload of round 1."""
    experiment = load_experiment("tiny", [f"sites.count={sites}"], root / "params.yaml")
    folder = new_run(root / f"runs-{sites}", experiment)
    names = [f"site-{number:02d}" for number in range(sites)]
    cases = {name: {"train": (k,), "val": (), "test": ()} for k, name in enumerate(names)}
    write_partition(folder.partition_path, Partition(cases, 1, 0), {})
    folder.write_inputs(experiment, LocatedFile(root, "files", ""), ())
    layout = Layout((("weight", (VALUES,)),))
    write_state(folder.state_path(0), RoundState(0, np.zeros(VALUES, np.float32), layout))
    write_memory(folder.server_path(0), {})
    body = np.ones(VALUES, "<f4").view(np.uint8)
    for name in names:
        payload = Payload(name, 1, 1 / sites, "plain", VALUES, body)
        write_payload(folder.site_path(1, name, "payload"), payload)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is the kernel's high-water mark")
def test_peak_memory_does_not_grow_with_the_number_of_sites(project):
    peaks = {}
    for sites in (5, 50):
        folder = run_with(sites, project)
        command = [sys.executable, "-c", MEASURE, str(folder.root)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        peaks[sites] = float(done.stdout)
    assert peaks[50] - peaks[5] < 2 * MODEL_MB
