"""No two releases share their noise: who asks a site twice with other inputs learns nothing more.

The attack of the audit (C3): a coordinator chooses what a site starts from, asks twice, and
subtracts. With the same noise on both, what is left is the update itself.
"""

from dataclasses import replace

import numpy as np
import pytest

import federated.stages.private_release
from federated.files import read_json, write_json
from federated.privacy.site_level import BELOW_CLIP
from federated.run.folder import RunFolder
from federated.run.update_files import (
    read_compressed,
    read_memory,
    read_state,
    write_memory,
    write_state,
)
from federated.stages.compress import compress_site
from federated.stages.share_style import STYLE, share_style
from federated.stages.worker import worker_context
from tests.conftest import tiny_arrays
from tests.federated.federation import SITE, begin, cosine, edit, entries, sent, unrelated

pytestmark = pytest.mark.usefixtures("project")

LARGE = ["privacy.noise_multiplier=100", "privacy.clip=1", "privacy.delta=1e-3"]
MECHANISMS = {
    "site_level": ["privacy.name=site_level", *LARGE],
    "dp_sgd": ["privacy.name=dp_sgd", *LARGE],
}
DISTRIBUTED = [
    *("privacy.name=site_level_distributed", "privacy.noise_multiplier=10", "privacy.clip=1"),
    *("compression.bits=16", "privacy.delta=1e-3"),
    *("protection.name=packed_bfv", "runner.name=processes"),
]


def other_rate(folder, write_npz, monkeypatch):
    edit(folder, training={"lr": 1e-12})


def other_state(folder, write_npz, monkeypatch):
    """One in which no gradient reaches anything but the last layer's bias."""
    start = read_state(folder.state_path(0))
    weights = start.weights.copy()
    for name, part in start.layout.split(weights).items():
        if part.ndim == 1 and "head" not in name:
            part[...] = 0
    write_state(folder.state_path(0), replace(start, weights=weights))


def other_data(folder, write_npz, monkeypatch):
    arrays = tiny_arrays()
    arrays["train_images"][:, 0, 0, 0] += 1
    write_npz(arrays)


def other_plan(folder, write_npz, monkeypatch):
    plan = read_json(folder.privacy_path)
    plan[SITE]["noise_multiplier"] *= 1.01
    write_json(folder.privacy_path, plan)


def other_memory(folder, write_npz, monkeypatch):
    write_memory(folder.memory_path(0, SITE), {"what it knew": np.ones(3, np.float32)})


def other_sites(folder, write_npz, monkeypatch):
    folder.write_inputs(folder.experiment(), folder.data(), ("site-02",))


def other_code(folder, write_npz, monkeypatch):
    monkeypatch.setattr(federated.stages.private_release, "code_digest", lambda: "another")


CHANGES = {
    change.__name__: change
    for change in (
        *(other_rate, other_state, other_data, other_plan, other_memory, other_sites),
        other_code,
    )
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("change", CHANGES)
def test_asked_again_the_same_is_sent_and_asked_for_another_the_noise_is_fresh(
    mechanism, change, write_npz, monkeypatch
):
    folder = begin(*MECHANISMS[mechanism])
    first = sent(folder)
    content = folder.site_path(1, SITE, "update").read_bytes()
    np.testing.assert_array_equal(sent(folder).vector, first.vector)
    assert folder.site_path(1, SITE, "update").read_bytes() == content
    assert entries(folder) == 1
    CHANGES[change](folder, write_npz, monkeypatch)
    second = sent(folder)
    assert unrelated(first.vector, second.vector)
    assert entries(folder) == 2


def test_the_difference_of_two_site_level_releases_says_nothing_of_the_update():
    """Against a learning rate of nothing, with the same noise the difference were the update."""
    folder = begin(*MECHANISMS["site_level"])
    first = sent(folder).vector
    edit(folder, training={"lr": 1e-12})
    recovered = first - sent(folder).vector
    edit(folder, training={"lr": 0.01}, privacy={"name": "none"})
    true = sent(folder).vector
    assert np.linalg.norm(true) > 0
    assert unrelated(recovered, true)


def test_the_difference_of_two_dp_sgd_releases_says_nothing_of_the_gradients(
    write_npz, monkeypatch
):
    """Against a state without gradients, with the same noise the difference were the gradients."""
    folder = begin(*MECHANISMS["dp_sgd"])
    start = read_state(folder.state_path(0))
    first = sent(folder).vector
    other_state(folder, write_npz, monkeypatch)
    recovered = first - sent(folder).vector
    write_state(folder.state_path(0), start)
    edit(folder, privacy={"noise_multiplier": 1e-6})
    plan = read_json(folder.privacy_path)
    write_json(folder.privacy_path, {s: p | {"noise_multiplier": 1e-6} for s, p in plan.items()})
    true = sent(folder).vector
    positions = start.layout.split(np.arange(len(true)))["head.bias"]
    assert unrelated(np.delete(recovered, positions), np.delete(true, positions))


def test_a_new_run_under_the_id_of_an_old_one_has_noise_of_its_own():
    old = begin(*MECHANISMS["site_level"], run_id="20260101-000000-abcd")
    first = sent(old).vector
    new = begin(*MECHANISMS["site_level"], "training.lr=1e-12", run_id="20260101-000000-abcd")
    assert new.root == old.root
    assert unrelated(first, sent(new).vector)
    assert entries(new) == 2


def test_two_runs_of_the_same_experiment_have_noise_of_their_own():
    one, other = (begin(*MECHANISMS["site_level"]) for _ in range(2))
    assert unrelated(sent(one).vector, sent(other).vector)


def test_the_clip_indicator_of_another_release_has_noise_of_its_own():
    """The update is the same zero each time, and so is the indicator but for its noise."""
    folder = begin(*MECHANISMS["site_level"], "privacy.adaptive.count_noise=160")
    indicators = []
    for number in range(8):
        edit(folder, training={"lr": 10.0 ** -(12 + number)})
        indicators.append(sent(folder).scalars[BELOW_CLIP])
    assert len(set(indicators)) == 8
    # A standard deviation of 8 numbers is within a factor of 3, but once in 10^4 times.
    assert 160 / 3 < np.std(indicators) < 160 * 3


def test_the_mean_of_the_features_in_another_release_has_noise_of_its_own():
    """``lr`` does not change the features, so that with the same noise both means were the same."""
    folder = begin(*MECHANISMS["dp_sgd"], "model.name=shallow_cnn")
    state = read_state(folder.state_path(0))

    def mean():
        parts = state.layout.split(sent(folder).vector)
        (name,) = (name for name in parts if name.endswith(".mean"))
        return parts[name]

    first = mean()
    edit(folder, training={"lr": 1e-12})
    second = mean()
    assert np.abs(first - second).min() > 0
    assert np.linalg.norm(first - second) > 0.5 * np.linalg.norm(first)


class TestStyles:
    SETTINGS = (
        *("strategy.name=resfim", "strategy.style_noise.clip=1"),
        "strategy.style_noise.noise_multiplier=100",
    )

    def style(self, folder: RunFolder) -> np.ndarray:
        worker_context.cache_clear()
        share_style(folder.root, SITE)
        return read_memory(folder.style_path(SITE))[STYLE]

    def test_a_style_is_released_once_and_another_one_with_other_noise(self):
        folder = begin(*self.SETTINGS)
        first = self.style(folder)
        np.testing.assert_array_equal(self.style(folder), first)
        edit(folder, training={"lr": 1e-12})
        second = self.style(folder)
        # Nothing that a style is made of has changed, and amplitudes below 0 are cut off.
        assert (first != second).mean() > 0.5
        assert abs(cosine(first - first.mean(), second - second.mean())) < 0.5

    def test_a_style_that_is_asked_for_again_after_updates_of_its_round_is_the_same(self):
        folder = begin(*self.SETTINGS)
        first = self.style(folder)
        for site in folder.sites():
            share_style(folder.root, site)
        sent(folder)
        np.testing.assert_array_equal(self.style(folder), first)


class TestQuantised:
    """Where the noise is in the sum, the quantised values are what is released."""

    def quantised(self, folder: RunFolder, weight: float = 1 / 3) -> np.ndarray:
        worker_context.cache_clear()
        compress_site(folder.root, SITE, 1, weight)
        return read_compressed(folder.site_path(1, SITE, "compressed")).numbers

    def test_quantised_values_are_made_once_in_an_attempt_at_a_round(self):
        folder = begin(*DISTRIBUTED)
        sent(folder)
        assert entries(folder) == 0
        first = self.quantised(folder)
        np.testing.assert_array_equal(self.quantised(folder), first)
        assert entries(folder) == 1

    @pytest.mark.parametrize("change", ["other_rate", "other_data", "other_plan", "other_code"])
    def test_other_quantised_values_have_noise_of_their_own(self, change, write_npz, monkeypatch):
        folder = begin(*DISTRIBUTED)
        sent(folder)
        first = self.quantised(folder)
        CHANGES[change](folder, write_npz, monkeypatch)
        # Compressed again without training: the update that lies there is no part of the release.
        assert unrelated(first, self.quantised(folder))
        assert entries(folder) == 2

    def test_another_weight_is_another_release(self):
        folder = begin(*DISTRIBUTED)
        sent(folder)
        assert unrelated(self.quantised(folder), self.quantised(folder, weight=1 / 4))
        assert entries(folder) == 2

    def test_an_attempt_at_a_round_that_begins_anew_has_values_of_its_own(self):
        """Its sum may be of other sites: two sums with the same values would give away a third."""
        folder = begin(*DISTRIBUTED)
        sent(folder)
        first = self.quantised(folder)
        sent(folder)
        assert unrelated(first, self.quantised(folder))
        assert entries(folder) == 2
