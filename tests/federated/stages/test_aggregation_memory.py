"""Aggregating more sites takes no more memory: one sum, and the payload that is being added."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from federated.configuration.load import load_experiment
from federated.data.dataset import LocatedFile
from federated.data.partition import Partition
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE, FolderExchange
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic, sign
from federated.files import write_json
from federated.protection import Cohort
from federated.protection.homomorphic import data_primes
from federated.protection.keys import new_run_key
from federated.protection.tag_proofs import ROWS
from federated.protection.tags import sealed_size
from federated.run.folder import RunFolder
from federated.run.runs import new_run
from federated.run.update_files import pack_payload, write_state
from federated.stages.coordinator import coordinator_identity
from federated.update import CompressedUpdate, Layout, RoundState
from tests.federated.exchange.parties import identity

VALUES = 1_000_000
MODEL_MB = 4 * VALUES / 2**20

# Each run is proposed anew, to which attempt the payloads answer.
MEASURE = """
import sys
from dataclasses import replace
from pathlib import Path
from federated.exchange.enrolment import Enrolment
from federated.stages.aggregate import add_payloads
from federated.stages.coordinator import propose
from federated.run.folder import RunFolder
from federated.run.memory import peak_rss_mb
for root in sys.argv[1:]:
    folder = RunFolder(Path(root))
    members = Enrolment.read(folder.coordinator_path / "members.json")
    coordinator = propose(folder, members, folder.sites())
    added = add_payloads(coordinator, replace(coordinator.topic(1), plan="a plan"), folder.sites())
    assert not added.refused, added
    print(peak_rss_mb())
"""


def run_with(sites: int, room: int, root: Path, settings: list[str]) -> RunFolder:
    """A run in which every site has sent its payload of round 1, with a key for ``room`` sites."""
    items = [f"sites.count={sites}", *settings]
    experiment = load_experiment("tiny", items, root / "params.yaml")
    folder = new_run(root / f"runs-{sites}", experiment)
    names = [f"site-{number:02d}" for number in range(sites)]
    cases = {name: {"train": (k,), "val": (), "test": ()} for k, name in enumerate(names)}
    folder.write_partition(Partition(cases, 1, 0), {})
    folder.write_inputs(experiment, LocatedFile(root, "files", ""), ())
    senders = [identity(name) for name in names]
    members = Enrolment()
    for sender in senders:
        members = members.enrol(sender.public)
    members.write(folder.coordinator_path / "members.json")
    layout = Layout((("values", (VALUES,)),))
    write_state(folder.state_path(0), RoundState(0, np.zeros(VALUES, np.float32), layout))
    protection, key, numbers = experiment.protection, None, np.ones(VALUES, np.float32)
    tags = b""
    if protection.keyed:
        key = new_run_key(protection.parameters(VALUES, Cohort(room, room, 1, 8))).opened()
        write_json(folder.context_path, key.public.to_json())
        numbers = np.ones(VALUES, np.int32)
        # The coordinator cannot read them.
        tags = bytes(sealed_size(len(data_primes(key.public.parameters)), ROWS))
    update = CompressedUpdate(names[0], 1, 1, 1 / sites, VALUES, numbers)
    payload = protection.protect(update, key)
    consortium = coordinator_identity(folder).public.consortium
    topic = Topic(consortium, folder.run_id, attempt=1, round=1, plan="a plan")
    for sender in senders:
        body = pack_payload(dataclasses.replace(payload, site=sender.name))
        message = sign(sender, topic, kinds.PAYLOAD, COORDINATOR, body)
        FolderExchange(folder.exchange_path).post(message)
        if tags:
            told = sign(sender, topic, kinds.TAG, EVERYONE, tags)
            FolderExchange(folder.exchange_path).post(told)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is the kernel's high-water mark")
@pytest.mark.parametrize(
    ("few", "many", "settings"),
    [
        (5, 50, []),
        (5, 100, ["protection.name=packed_bfv", "compression.bits=8", "runner.name=processes"]),
    ],
    ids=["plain", "packed_bfv"],
)
def test_peak_memory_does_not_grow_with_the_number_of_sites(project, few, many, settings):
    folders = [run_with(sites, many, project, settings) for sites in (few, many)]
    command = [sys.executable, "-c", MEASURE, *(str(folder.root) for folder in folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    # The largest so far: what many sites take beyond what few have taken.
    peak_of_few, peak = map(float, done.stdout.split())
    assert peak - peak_of_few < 2 * MODEL_MB
