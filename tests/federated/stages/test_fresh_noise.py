"""No two releases share their noise: who asks a site twice with other inputs learns nothing more.

The attack of the audit (C3): a coordinator chooses what a site starts from, asks twice, and
subtracts. With the same noise on both, what is left is the update itself.
"""

from dataclasses import replace

import numpy as np
import pytest

import federated.stages.private_release
from federated.data.partition import CaseCounts
from federated.errors import RefusalError
from federated.exchange import kinds
from federated.privacy.site_level import BELOW_CLIP
from federated.run.update_files import (
    read_compressed,
    read_memory,
    read_state,
    write_memory,
    write_state,
)
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round
from federated.stages.share_style import STYLE, share_style
from federated.weights.bounded_file import Content
from tests.conftest import tiny_pictures
from tests.federated.federation import (
    SITE,
    begin,
    cosine,
    edit,
    entries,
    sent,
    sign_other_plan,
    signed_plan,
    unrelated,
)
from tests.federated.staged_run import Staged, forget_processes, record

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


def other_rate(run, write_npz, monkeypatch):
    edit(run, training={"lr": 1e-12})


def other_state(run, write_npz, monkeypatch):
    """One in which no gradient reaches anything but the last layer's bias."""
    start = read_state(run.folder.state_path(0))
    weights = start.weights.copy()
    for name, part in start.layout.split(weights).items():
        if part.ndim == 1 and "head" not in name:
            part[...] = 0
    write_state(run.folder.state_path(0), replace(start, weights=weights))
    run.resume()


def other_data(run, write_npz, monkeypatch):
    arrays = tiny_pictures()
    arrays["train_images"][:, 0, 0, 0] += 1
    write_npz(arrays)


def other_plan(run, write_npz, monkeypatch):
    edit(run, privacy={"noise_multiplier": 1.01 * run.experiment.privacy.noise_multiplier})


def other_sites(run, write_npz, monkeypatch):
    run.folder.write_inputs(run.experiment, run.folder.data(), ("site-02",))
    run.resume()


def other_code(run, write_npz, monkeypatch):
    monkeypatch.setattr(federated.stages.private_release, "code_digest", lambda: "another")


CHANGES = {
    change.__name__: change
    for change in (other_rate, other_state, other_data, other_plan, other_sites, other_code)
}


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("change", CHANGES)
def test_asked_again_the_same_is_sent_and_asked_for_another_the_noise_is_fresh(
    mechanism, change, write_npz, monkeypatch
):
    run = begin(*MECHANISMS[mechanism])
    first = sent(run)
    content = run.store(SITE).work_path(1, "update").read_bytes()
    np.testing.assert_array_equal(sent(run).vector, first.vector)
    assert run.store(SITE).work_path(1, "update").read_bytes() == content
    assert entries(run) == 1
    CHANGES[change](run, write_npz, monkeypatch)
    second = sent(run)
    assert unrelated(first.vector, second.vector)
    assert entries(run) == 2


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_asked_again_in_another_attempt_at_the_run_the_same_is_sent(mechanism):
    run = begin(*MECHANISMS[mechanism])
    first = sent(run)
    run.resume()
    np.testing.assert_array_equal(sent(run).vector, first.vector)
    assert entries(run) == 1


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_another_memory_of_the_site_is_another_release(mechanism):
    """What a site keeps of rounds before is its own; a round it dropped out of leaves it older."""
    run = begin(*MECHANISMS[mechanism], "rounds=2")
    sent(run)
    state = read_state(run.folder.state_path(0))
    write_state(run.folder.state_path(1), replace(state, round_number=1))
    record(run, 1, run.sites)
    first = sent(run, 2)
    np.testing.assert_array_equal(sent(run, 2).vector, first.vector)
    assert entries(run) == 2
    write_memory(run.store(SITE).memory_path(1), {"what it knew": np.ones(3, np.float32)})
    assert unrelated(first.vector, sent(run, 2).vector)
    assert entries(run) == 3


@pytest.mark.parametrize("factor", [0.99, 1.01])
@pytest.mark.parametrize("mechanism", [*MECHANISMS, "distributed"])
def test_a_plan_with_another_release_than_the_sites_own_is_refused_and_nothing_is_entered(
    mechanism, factor
):
    run = begin(*(MECHANISMS | {"distributed": DISTRIBUTED})[mechanism])
    told = dict(signed_plan(run).releases)
    told[SITE] = replace(told[SITE], noise_multiplier=factor * told[SITE].noise_multiplier)
    sign_other_plan(run, releases=told)
    with pytest.raises(RefusalError, match="by its own arithmetic"):
        sent(run)
    assert not run.store(SITE).work_path(1, "update").exists()
    run.resume()
    assert entries(run) == 0


def test_the_difference_of_two_site_level_releases_says_nothing_of_the_update():
    """Against a learning rate of nothing, with the same noise the difference were the update."""
    run = begin(*MECHANISMS["site_level"])
    first = sent(run).vector
    edit(run, training={"lr": 1e-12})
    recovered = first - sent(run).vector
    edit(run, training={"lr": 0.01}, privacy={"name": "none"})
    true = sent(run).vector
    assert np.linalg.norm(true) > 0
    assert unrelated(recovered, true)


def test_the_difference_of_two_dp_sgd_releases_says_nothing_of_the_gradients(
    write_npz, monkeypatch
):
    """Against a state without gradients, with the same noise the difference were the gradients."""
    run = begin(*MECHANISMS["dp_sgd"])
    start = read_state(run.folder.state_path(0))
    first = sent(run).vector
    other_state(run, write_npz, monkeypatch)
    recovered = first - sent(run).vector
    write_state(run.folder.state_path(0), start)
    edit(run, privacy={"noise_multiplier": 1e-6})
    true = sent(run).vector
    positions = start.layout.split(np.arange(len(true)))["head.bias"]
    assert unrelated(np.delete(recovered, positions), np.delete(true, positions))


def test_a_new_run_under_the_id_of_an_old_one_has_noise_of_its_own():
    old = begin(*MECHANISMS["site_level"], run_id="20260101-000000-abcd")
    first = sent(old).vector
    new = begin(*MECHANISMS["site_level"], "training.lr=1e-12", run_id="20260101-000000-abcd")
    assert new.folder.root == old.folder.root
    assert new.coordinator.mailbox.me.public == old.coordinator.mailbox.me.public
    assert new.coordinator.start.attempt == old.coordinator.start.attempt
    assert unrelated(first, sent(new).vector)
    assert entries(new) == 2


def test_two_runs_of_the_same_experiment_have_noise_of_their_own():
    one, other = (begin(*MECHANISMS["site_level"]) for _ in range(2))
    assert unrelated(sent(one).vector, sent(other).vector)


def test_the_clip_indicator_of_another_release_has_noise_of_its_own():
    """The update is the same zero each time, and so is the indicator but for its noise."""
    run = begin(*MECHANISMS["site_level"], "privacy.adaptive.count_noise=160")
    indicators = []
    for number in range(8):
        edit(run, training={"lr": 10.0 ** -(12 + number)})
        indicators.append(sent(run).scalars[BELOW_CLIP])
    assert len(set(indicators)) == 8
    # A standard deviation of 8 numbers is within a factor of 3, but once in 10^4 times.
    assert 160 / 3 < np.std(indicators) < 160 * 3


def test_the_mean_of_the_features_in_another_release_has_noise_of_its_own():
    """``lr`` does not change the features, so that with the same noise both means were the same."""
    run = begin(*MECHANISMS["dp_sgd"], "model.name=shallow_cnn")
    state = read_state(run.folder.state_path(0))

    def mean():
        parts = state.layout.split(sent(run).vector)
        (name,) = (name for name in parts if name.endswith(".mean"))
        return parts[name]

    first = mean()
    edit(run, training={"lr": 1e-12})
    second = mean()
    assert np.abs(first - second).min() > 0
    assert np.linalg.norm(first - second) > 0.5 * np.linalg.norm(first)


class TestStyles:
    SETTINGS = (
        *("strategy.name=resfim", "strategy.style_noise.clip=1"),
        "strategy.style_noise.noise_multiplier=100",
    )

    def style(self, run: Staged) -> np.ndarray:
        forget_processes()
        share_style(run.call(SITE))
        topic, receive = run.coordinator.topic(0), run.coordinator.mailbox.receive
        message = receive(topic, kinds.STYLE, SITE, kinds.MOST_STYLE, for_all=True)
        return read_memory(Content(message.body, "of a style"))[STYLE]

    def test_a_style_is_released_once_and_another_one_with_other_noise(self):
        run = begin(*self.SETTINGS)
        first = self.style(run)
        np.testing.assert_array_equal(self.style(run), first)
        edit(run, training={"lr": 1e-12})
        second = self.style(run)
        # Nothing that a style is made of has changed, and amplitudes below 0 are cut off.
        assert (first != second).mean() > 0.5
        assert abs(cosine(first - first.mean(), second - second.mean())) < 0.5

    def test_a_style_that_is_asked_for_again_after_updates_of_its_round_is_the_same(self):
        run = begin(*self.SETTINGS)
        first = self.style(run)
        for site in run.sites:
            share_style(run.call(site))
        sent(run)
        np.testing.assert_array_equal(self.style(run), first)


class TestQuantised:
    """Where the noise is in the sum, the quantised values are what is released."""

    def quantised(self, run: Staged) -> np.ndarray:
        forget_processes()
        begin_round(run.coordinator, 1)
        compress_site(run.call(SITE), 1)
        return read_compressed(run.store(SITE).work_path(1, "compressed")).numbers

    def test_quantised_values_are_made_once_in_an_attempt_at_a_round(self):
        run = begin(*DISTRIBUTED)
        sent(run)
        assert entries(run) == 0
        first = self.quantised(run)
        np.testing.assert_array_equal(self.quantised(run), first)
        assert entries(run) == 1

    @pytest.mark.parametrize("change", ["other_rate", "other_data", "other_plan", "other_code"])
    def test_other_quantised_values_have_noise_of_their_own(self, change, write_npz, monkeypatch):
        run = begin(*DISTRIBUTED)
        sent(run)
        first = self.quantised(run)
        CHANGES[change](run, write_npz, monkeypatch)
        # Compressed again without training: the update that lies there is no part of the release.
        assert unrelated(first, self.quantised(run))
        assert entries(run) == 2

    def test_another_weight_is_another_release(self):
        """By a plan with other numbers of cases of the other sites, which a site cannot check."""
        run = begin(*DISTRIBUTED)
        sent(run)
        first = self.quantised(run)
        counts = {site: dict(own) for site, own in signed_plan(run).counts.sites.items()}
        counts["site-01"]["train"] *= 2
        sign_other_plan(run, counts=CaseCounts(counts))
        assert unrelated(first, self.quantised(run))
        assert entries(run) == 2

    def test_a_plan_with_other_numbers_of_its_own_cases_is_refused(self):
        run = begin(*DISTRIBUTED)
        sent(run)
        counts = {site: dict(own) for site, own in signed_plan(run).counts.sites.items()}
        counts[SITE]["train"] *= 2
        sign_other_plan(run, counts=CaseCounts(counts))
        with pytest.raises(RefusalError, match="Its update would have another weight"):
            self.quantised(run)
        run.resume()
        assert entries(run) == 0

    def test_an_attempt_at_a_round_that_begins_anew_has_values_of_its_own(self):
        """Its sum may be of other sites: two sums with the same values would give away a third."""
        run = begin(*DISTRIBUTED)
        sent(run)
        first = self.quantised(run)
        sent(run)
        assert unrelated(first, self.quantised(run))
        assert entries(run) == 2
