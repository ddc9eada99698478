from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import nn

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.privacy import DPSGD, SiteLevel
from federated.privacy.accounting import Release, epsilon
from federated.privacy.adaptive_clipping import AdaptiveClipping
from federated.privacy.noise import SecretRandom
from federated.privacy.site_level import BELOW_CLIP
from federated.training.objective import Objective
from tests.conftest import PROJECT
from tests.federated.conftest import case_names
from tests.networks import build_model

KEY = bytes(range(32))
CASES = 24


def cross_entropy(logits, labels, reduction):
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


def steps(number, noise=0.0, clip=1e-3, mode="hooks", physical_batch=32, sampled=1.0, **settings):
    """The clipping norm after ``number`` steps on a model that stands still, and all the norms."""
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    images = torch.randn((CASES, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(CASES) % 2

    objective = Objective(lambda batch: (images[batch], labels[batch]), cross_entropy)
    norms = []
    for case in range(CASES):
        gradients = torch.autograd.grad(
            objective.of(model, *objective.take(torch.tensor([case]))), model.parameters()
        )
        norms.append(float(torch.cat([g.reshape(-1) for g in gradients]).norm()))
    privacy = DPSGD(
        clip=clip,
        noise_multiplier=1.0,
        mode=mode,
        physical_batch=physical_batch,
        adaptive=AdaptiveClipping(**settings),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    release = Release(noise, sampled, number)
    random = SecretRandom(KEY)
    private = privacy.gradients(model, optimizer, release, case_names(CASES), clip, random)
    seen = []
    for batch in private.batches():
        private.compute(batch, objective)
        seen.append(private.clip)
    private.close()
    return seen, np.array(norms)


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
@pytest.mark.parametrize("quantile", [0.25, 0.75])
def test_the_norm_goes_to_the_quantile(mode, quantile):
    seen, norms = steps(20, clip=0.5, mode=mode, quantile=quantile, rate=0.6, physical_batch=10)
    assert seen[-1] == pytest.approx(np.quantile(norms, quantile), rel=0.1)


def test_a_step_moves_it_by_the_share_of_norms_below():
    seen, norms = steps(1, clip=0.5, quantile=0.5, rate=0.2)
    share = (norms <= 0.5).mean()
    assert seen[0] == pytest.approx(0.5 * np.exp(-0.2 * (share - 0.5)))


def test_from_far_above_it_falls():
    seen, norms = steps(5, clip=1e3, rate=0.2)
    assert seen == pytest.approx([1e3 * np.exp(-0.1 * step) for step in range(1, 6)], rel=1e-6)
    assert norms.max() < 1e2


def test_the_gradients_are_clipped_to_the_norm_of_the_moment():
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    images = torch.randn((CASES, 1, 12, 12), generator=torch.Generator().manual_seed(0))

    objective = Objective(lambda batch: (images[batch], batch % 2), cross_entropy)
    privacy = DPSGD(
        clip=1e-4, noise_multiplier=1.0, mode="hooks", adaptive=AdaptiveClipping(rate=1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    release = Release(0.0, 1.0, 3)
    random = SecretRandom(KEY)
    private = privacy.gradients(model, optimizer, release, case_names(CASES), 1e-4, random)
    found = []
    for batch in private.batches():
        private.compute(batch, objective)
        found.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone())
    private.close()
    # The model stands still and every gradient is clipped, so that only the norm changes.
    for before, after in pairwise(found):
        torch.testing.assert_close(after, before * np.exp(0.5), rtol=1e-3, atol=1e-9)
    assert private.clip == pytest.approx(1e-4 * np.exp(1.5))


def test_the_count_is_noised_with_what_was_promised():
    # Steps that draw nobody, at a rate that keeps the norm in range.
    seen, _ = steps(100, noise=2.0, clip=0.5, sampled=1e-9, rate=1e-11, count_noise=6.0)
    counts = np.diff(np.log([0.5, *seen])) / -1e-11 * 1e-9 * CASES
    assert np.mean(counts) == pytest.approx(0.0, abs=2.0)
    assert np.std(counts) == pytest.approx(6.0, rel=0.25)


def test_counts_and_gradients_cost_together_what_the_noise_multiplier_says():
    adaptive = AdaptiveClipping(count_noise=2.0)
    noise = adaptive.noise_of_sum(1.5, expected_batch=32)
    # Two Gaussian mechanisms on the same cases: their inverse variances add up.
    assert noise**-2 + (2 * 2.0) ** -2 == pytest.approx(1.5**-2)
    together = epsilon([Release(noise, 1.0, 1), Release(4.0, 1.0, 1)], 1e-5, "rdp")
    assert together == pytest.approx(epsilon([Release(1.5, 1.0, 1)], 1e-5, "rdp"), rel=1e-6)


def test_without_a_count_noise_the_gradients_pay_little():
    for noise, batch in ((0.5, 1.0), (3.0, 32.0), (1.0, 640.0)):
        assert noise <= AdaptiveClipping().noise_of_sum(noise, batch) <= 1.033 * noise


def test_too_little_noise_on_the_counts_is_refused_with_the_remedy():
    with pytest.raises(ConsiliumError, match=r"count_noise=0\.4 is too little.*above 0\.5"):
        AdaptiveClipping(count_noise=0.4).noise_of_sum(1.0, 32)


@pytest.mark.parametrize("value", ["quantile=0", "quantile=1", "rate=0", "count_noise=-1"])
def test_impossible_settings_are_refused(value):
    items = ["privacy.name=dp_sgd", "privacy.noise_multiplier=1", f"privacy.adaptive.{value}"]
    with pytest.raises(ConsiliumError, match=r"privacy\.adaptive"):
        load_experiment("demo", items, PROJECT / "params.yaml")


def test_without_adaptation_there_is_no_norm_to_keep():
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    privacy = DPSGD(noise_multiplier=1.0)
    release = Release(1.0, 1.0, 1)
    random = SecretRandom(KEY)
    private = privacy.gradients(model, optimizer, release, case_names(4), privacy.clip, random)
    private.close()
    assert private.clip is None


class TestSiteLevel:
    ADAPTIVE = SiteLevel(clip=2.0, noise_multiplier=1.5, adaptive={"quantile": 0.5, "rate": 0.2})

    def sent(self, update, clip=2.0, privacy=ADAPTIVE, key=KEY):
        release = privacy.plan(100, 7, 16, 20)
        return privacy.protect_update(update, release, clip, SecretRandom(key))

    def test_update_and_count_have_the_noise_that_is_one_mechanism_of_the_plan(self):
        update = np.ones(100_000, np.float32)
        sent, _ = self.sent(update)
        noise = (sent - update * 2 / np.linalg.norm(update)).std() / 2
        counts = [
            self.sent(update[:1], key=bytes([n % 256, n // 256] * 16))[1][BELOW_CLIP]
            for n in range(4000)
        ]
        count_noise = np.std(counts)
        assert noise == pytest.approx(self.ADAPTIVE.adaptive.noise_of_sum(1.5, 1, 1.0), rel=0.02)
        # Theorem 1 with a bit of sensitivity 1: z⁻² = z_Δ⁻² + σ_b⁻².
        assert noise**-2 + count_noise**-2 == pytest.approx(1.5**-2, rel=0.03)
        assert np.mean(counts) == pytest.approx(0.5, abs=0.3)  # 1 is at most 2 long
        long = [self.sent(update, key=bytes([n] * 32))[1][BELOW_CLIP] for n in range(200)]
        assert np.mean(long) == pytest.approx(-0.5, abs=1.3)

    def test_the_norm_follows_the_share_of_sites(self):
        assert self.ADAPTIVE.initial_clip() == 2.0
        for share, exponent in ((0.5, -0.2 * 0.5), (-0.5, 0.2 * 0.5)):
            expected = pytest.approx(2 * np.exp(exponent))
            assert self.ADAPTIVE.next_clip(2.0, {BELOW_CLIP: share}) == expected

    def test_without_adaptation_nothing_is_counted(self):
        fixed = SiteLevel(clip=2.0, noise_multiplier=1.5)
        assert fixed.initial_clip() is None
        assert self.sent(np.ones(4, np.float32), privacy=fixed)[1] == {}


class Constant(SecretRandom):
    """Draws that are all ``value``: 0 gives the mean of what is sent, 1 the mean and one σ."""

    def __init__(self, value):
        super().__init__(KEY)
        self.value = value

    def normal(self, shape):
        return np.full(shape, float(self.value))


def exact_epsilon(distance, delta):
    """ε of two Gaussians so many standard deviations apart (Balle and Wang 2018, Theorem 8)."""

    def excess(epsilon):
        upper = norm.cdf(distance / 2 - epsilon / distance)
        return upper - np.exp(epsilon) * norm.cdf(-distance / 2 - epsilon / distance) - delta

    return brentq(excess, 1e-9, 600)


class TestTheExtremePair:
    """An update of zero against one of five times the norm: the furthest that two can be apart."""

    def distance(self, privacy, z):
        release = Release(z, 1.0, 1)
        zero, long = np.zeros(1, np.float32), np.full(1, 5 * privacy.clip, np.float32)

        def sent(update, value):
            noised, scalars = privacy.protect_update(update, release, privacy.clip, Constant(value))
            return np.array([*noised, *scalars.values()], np.float64)

        deviations = sent(zero, 1) - sent(zero, 0)
        np.testing.assert_allclose(deviations, sent(long, 1) - sent(long, 0), rtol=1e-5)
        moved = sent(long, 0) - sent(zero, 0)
        seen = deviations > 0
        return float(np.linalg.norm(moved[seen] / deviations[seen]))

    @pytest.mark.parametrize("z", [0.3, 1.0, 3.0])
    @pytest.mark.parametrize("count_noise", [None, 1.1, 2.0, 10.0])
    def test_of_sites_is_as_far_apart_as_the_ledger_says(self, z, count_noise):
        settings = {} if count_noise is None else {"count_noise": count_noise * z}
        for adaptive in (None, settings):
            privacy = SiteLevel(clip=2.0, noise_multiplier=z, adaptive=adaptive)
            found = self.distance(privacy, z)
            assert found == pytest.approx(1 / z, rel=1e-5)
            for rounds in (1, 20):
                entered = epsilon([Release(z, 1.0, rounds)], 1e-5, "prv")
                assert entered >= 0.999 * exact_epsilon(found * np.sqrt(rounds), 1e-5)

    @pytest.mark.parametrize("z", [0.3, 1.0, 3.0])
    @pytest.mark.parametrize("count_noise", [None, 0.6, 2.0, 10.0])
    def test_of_cases_which_are_there_or_not(self, z, count_noise):
        settings = {} if count_noise is None else {"count_noise": count_noise * z}
        adaptive = AdaptiveClipping(**settings)
        sums = 1 / adaptive.noise_of_sum(z, 16)
        counts = 0.5 / adaptive.noise_of_count(z, 16)
        assert np.hypot(sums, counts) == pytest.approx(1 / z, rel=1e-9)

    def test_a_site_pays_little_for_its_bit(self):
        privacy = SiteLevel(clip=1.0, noise_multiplier=1.5, adaptive={})
        for z in (0.05, 1.5, 100.0):
            assert z <= privacy.update_noise(Release(z, 1.0, 1), 1.0) <= 1.033 * z

    def test_a_count_noise_that_cases_may_have_is_too_little_for_sites(self):
        privacy = SiteLevel(clip=1.0, noise_multiplier=1.0, adaptive={"count_noise": 0.55})
        with pytest.raises(ConsiliumError, match=r"count_noise=0\.55 is too little.*above 1, or"):
            privacy.protect_update(np.zeros(2, np.float32), Release(1.0, 1, 1), 1.0, Constant(0))
