"""Bytes up of MedHE's payloads, as files, over dense float32; no training, since none changes them.

    python benchmarks/medhe_bytes.py --seed 0

A payload is made as a site makes it: as many quantised values as the experiment sends, drawn at
random, encrypted with a key of the run's parameters, and written to a file. How long a ciphertext
is does not depend on what is in it.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from federated.compression.quantize import largest_quantised
from federated.configuration.load import load_experiment
from federated.data.medmnist.files import dataset_info
from federated.protection.keys import new_run_key
from federated.rounds.context import sent_length
from federated.run.update_files import pack_payload
from federated.stages.keys import key_parameters
from federated.update import CompressedUpdate, Layout
from federated.weights.build import new_model

SPARSE = ["compression.name=shared_mask"]
ROWS = {
    "small net, 4.53 % at 7 bits, 20 rounds": [
        *SPARSE,
        "compression.density=0.0453",
        "compression.bits=7",
        "rounds=20",
    ],
    "ResNet-18 3D, 1 % at 8 bits, 60 rounds": [
        *SPARSE,
        "model.name=resnet3d",
        "compression.density=0.01",
        "compression.bits=8",
        "rounds=60",
    ],
}


def measure(overrides: list[str], protection: str, rng: np.random.Generator) -> tuple[int, float]:
    """The bytes of one site's payload, and their share of its dense float32 update."""
    items = [*overrides, f"protection.name={protection}"]
    experiment = load_experiment("adrenal", items, Path("params.yaml"))
    model = new_model(experiment, dataset_info(experiment.data.dataset))
    layout = Layout.of(model, experiment.strategy.personal(model))
    length, bits = sent_length(experiment, layout), experiment.compression.bits
    most = largest_quantised(bits)
    quantised = rng.integers(-most, most + 1, length).astype(np.int32)
    key = new_run_key(key_parameters(experiment, layout)).opened()
    update = CompressedUpdate("site-00", 1, 10, 0.1, layout.size, quantised)
    payload = experiment.protection.protect(update, key)
    size = len(pack_payload(payload))
    return size, size / (4 * layout.size)


def main() -> None:
    """Print bytes and shares of both networks under both encryptors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    rng = np.random.default_rng(chosen.seed)
    table = Table(title="bytes up of a site in a round, 10 sites")
    for column in ("", "protection", "bytes", "of dense float32"):
        table.add_column(column, justify="right" if column.startswith(("b", "o")) else "left")
    for name, overrides in ROWS.items():
        for protection in ("packed_bfv", "ckks"):
            size, share = measure(overrides, protection, rng)
            table.add_row(name, protection, f"{size}", f"{share:.2%}")
    Console().print(table)


if __name__ == "__main__":
    main()
