"""Runs whose worker processes train on a GPU: the same each time, and those of a CPU nearly."""

import numpy as np
import pytest

from federated.run.update_files import read_state
from tests.devices import ON_CUDA
from tests.flows.conftest import weights

pytestmark = [*ON_CUDA, pytest.mark.usefixtures("prefect_server")]

# SGD, since the first steps of Adam go by the sign of a gradient, which rounding may turn.
COMMON = [
    *("runner.name=processes", "runner.workers=3", "selection.keep=last"),
    *("training.optimizer=sgd", "training.lr=0.01", "training.momentum=0"),
]
MASKED = [
    *("compression.name=shared_mask", "compression.density=0.2", "compression.bits=8"),
    "compression.train=sent",
]
SEEDED = ["privacy.noise=seeded", "privacy.delta=1e-3", "privacy.clip=1"]
RUNS = {
    "fedprox": ["strategy.name=fedprox", "strategy.mu=0.1"],
    "scaffold": ["strategy.name=scaffold"],
    "fedbn": ["strategy.name=fedbn", "model.norm=batch"],
    "ditto": ["strategy.name=ditto"],
    "apfl": ["strategy.name=apfl"],
    "resfim": ["strategy.name=resfim"],
    "bfloat16": ["training.precision=bfloat16"],
    "torchio": ["training.augment=torchio", "training.class_weights=balanced"],
    "masked, packed_bfv": [*MASKED, "protection.name=packed_bfv"],
    "masked, ckks": [*MASKED, "protection.name=ckks"],
    "secagg_plus": ["compression.bits=16", "protection.name=secagg_plus"],
    "dp_sgd": ["privacy.name=dp_sgd", "privacy.noise_multiplier=1", *SEEDED],
    "dp_sgd, centred": [
        *("privacy.name=dp_sgd", "privacy.noise_multiplier=1", *SEEDED),
        *("model.name=shallow_cnn", "privacy.adaptive.rate=0.5"),
    ],
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_each_time_and_near_that_of_a_cpu(run, name):
    def trained(device):
        return run(overrides=[*COMMON, *RUNS[name], f"training.device={device}"])

    one, again, on_cpu = trained("cuda"), trained("cuda"), trained("cpu")
    np.testing.assert_array_equal(weights(one), weights(again))
    moved = np.linalg.norm(weights(on_cpu) - read_state(on_cpu.state_path(1)).weights)
    # 16 bits are rounded elsewhere by each, and a value at the kink of a ReLU falls to either side.
    near = 0.5 if name == "bfloat16" else 0.05
    assert np.linalg.norm(weights(one) - weights(on_cpu)) <= near * moved


def test_float16_trains_and_a_run_that_was_stopped_ends_with_the_same_weights(run):
    half = [*COMMON, "training.device=cuda", "training.precision=float16", "strategy.name=scaffold"]
    whole, first = run(overrides=half, rounds=3), run(overrides=half, rounds=1)
    np.testing.assert_array_equal(weights(whole), weights(run(resume=first.run_id, rounds=3)))
