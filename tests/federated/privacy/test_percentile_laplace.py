"""The paper's Laplace noise at a percentile, and that no guarantee is told of it."""

import numpy as np
import pytest
from scipy import stats

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.privacy import PercentileLaplace
from federated.privacy.composition import spent
from federated.privacy.ledger import Budget, Ledger, Spending
from federated.privacy.noise import SecretRandom
from tests.conftest import PROJECT
from tests.federated.privacy.refusing import beyond

KEY = bytes(range(32))
PRIVACY = PercentileLaplace(clip=10.0, noise_multiplier=0.5, percentile=90)


def sent(update, privacy=PRIVACY):
    release = privacy.plan(100, 7, 16, 20)
    return privacy.protect_update(update, release, privacy.clip, SecretRandom(KEY))[0]


def test_values_are_clipped_at_their_percentile_and_the_noise_is_laplaces():
    update = np.linspace(-1, 1, 100_001).astype(np.float32)
    noise = sent(update) - np.clip(update, -0.9, 0.9)
    assert stats.kstest(noise / (0.5 * 0.9), "laplace").pvalue > 1e-3


def test_the_threshold_is_at_most_the_clip():
    update = np.full(100_000, 5.0, np.float32)
    noise = sent(update, PRIVACY.model_copy(update={"clip": 2.0})) - 2.0
    assert noise.std() == pytest.approx(np.sqrt(2) * 0.5 * 2.0, rel=0.02)


def test_no_epsilon_is_asked_of_it_or_told(tmp_path):
    items = ["privacy.name=percentile_laplace", "privacy.clip=1"]
    load_experiment("demo", [*items, "privacy.noise_multiplier=1"], PROJECT / "params.yaml")
    with pytest.raises(ConsiliumError, match="no epsilon can be asked of it"):
        load_experiment("demo", [*items, "privacy.epsilon=1"], PROJECT / "params.yaml")
    entry = Spending(PRIVACY.mechanism, "site", 100.0, 1.0, 1, 1.0, 1, "run", "demo", "site-00")
    for unit in ("site", "record"):
        assert spent([entry], unit, 1e-5, "prv") == float("inf")
    assert "gives no guarantee" in PRIVACY.warnings(100, 10)[0]
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.set_budget(Budget("site", 1e6, 1e-5))
    with beyond("would make it inf"):
        ledger.spend(entry)
