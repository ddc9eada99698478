"""Noise, clipping, DP-SGD and site-level privacy."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from federated.errors import ConsiliumError
from federated.privacy import DPSGD, DistributedSiteLevel, SiteLevel
from federated.privacy.accounting import Release, epsilon
from federated.privacy.dp_sgd import refuse_unsuitable
from federated.privacy.noise import SecretRandom, fresh_random, seeded_random
from federated.privacy.site_level import clip_to
from federated.training.objective import Objective
from tests.federated.conftest import case_names
from tests.networks import build_model

KEY = bytes(range(32))


class TestNoise:
    def test_uniform_and_normal_are_what_they_are_called(self):
        random = SecretRandom(KEY)
        uniform, normal = random.uniform(100_000), random.normal((100, 1000))
        assert 0 < uniform.min() < uniform.max() < 1
        assert stats.kstest(uniform, "uniform").pvalue > 1e-3
        assert normal.shape == (100, 1000)
        assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
        assert abs(np.corrcoef(normal)[0, 1]) < 0.15

    def test_fresh_noise_is_never_the_same_again(self):
        drawn = [fresh_random().normal((50,)) for _ in range(20)]
        assert len(np.unique(np.concatenate(drawn))) == 20 * 50

    def test_seeded_noise_depends_on_the_seed_alone(self):
        first = seeded_random(0, "a", 1, "p").normal((9,))
        np.testing.assert_array_equal(first, seeded_random(0, "a", 1, "p").normal((9,)))
        assert (seeded_random(1, "a", 1, "p").normal((9,)) != first).all()


class TestSiteLevel:
    def test_an_update_is_clipped_and_never_stretched(self):
        update = np.float32([3, 4])
        np.testing.assert_allclose(clip_to(update, 1.0), [0.6, 0.8], rtol=1e-6)
        np.testing.assert_array_equal(clip_to(update, 7.0), update)
        np.testing.assert_array_equal(clip_to(np.zeros(2, np.float32), 1.0), [0, 0])

    def test_the_noise_is_that_of_the_multiplier_and_the_clip(self):
        privacy = SiteLevel(clip=2.0, noise_multiplier=1.5)
        update = np.full(100_000, 1.0, np.float32)
        planned = privacy.plan(100, 7, 16, 20)
        sent, scalars = privacy.protect_update(update, planned, 2.0, SecretRandom(KEY))
        assert scalars == {}
        assert sent.dtype == np.float32
        noise = sent - clip_to(update, 2.0)
        assert noise.std() == pytest.approx(3.0, rel=0.02)
        assert stats.kstest(noise / 3.0, "norm").pvalue > 1e-3

    def test_the_papers_budget_is_per_round(self):
        paper = SiteLevel(clip=7.0, epsilon_per_round=6.0, delta=1.9e-4).plan(100, 7, 16, 20)
        composed = SiteLevel(clip=7.0, epsilon=6.0, delta=1.9e-4).plan(100, 7, 16, 20)
        assert (paper.sampling_rate, paper.steps) == (1.0, 1)
        assert composed.noise_multiplier > 3 * paper.noise_multiplier


class TestSchedule:
    def private(self, **settings):
        return DPSGD(**({"delta": 1e-4, "epsilon": 3.0} | settings))

    def releases(self, privacy, rounds=9):
        planned = privacy.plan(100, 4, 20, rounds)
        return [privacy.of_round(planned, number, rounds) for number in range(1, rounds + 1)]

    def test_stretches_of_equal_length_have_their_share_of_the_noise(self):
        found = self.releases(self.private(noise_schedule=(2.0, 1.0, 0.5), accountant="rdp"))
        relative = [release.noise_multiplier / found[4].noise_multiplier for release in found]
        assert relative == pytest.approx([2, 2, 2, 1, 1, 1, 0.5, 0.5, 0.5])

    def test_a_stretch_may_be_shorter_where_rounds_do_not_divide(self):
        privacy = self.private(noise_schedule=(2.0, 1.0))
        assert [privacy.factor(number, 3) for number in (1, 2, 3)] == [2.0, 2.0, 1.0]
        assert [privacy.factor(number, 1) for number in (1,)] == [2.0]

    @pytest.mark.parametrize("accountant", ["rdp", "prv"])
    def test_epsilon_is_that_of_all_stretches_together(self, accountant):
        privacy = self.private(noise_schedule=(1.5, 0.7), accountant=accountant)
        found = self.releases(privacy)
        assert epsilon(found, 1e-4, accountant) == pytest.approx(3.0, rel=0.01)
        assert epsilon(found, 1e-4, accountant) <= 3.0 * 1.0001
        constant = self.releases(self.private(accountant=accountant))
        assert found[-1].noise_multiplier < constant[0].noise_multiplier < found[0].noise_multiplier

    def test_with_a_noise_multiplier_it_is_taken_as_it_stands(self):
        privacy = DPSGD(noise_multiplier=2.0, noise_schedule=(1.0, 0.5))
        noises = [release.noise_multiplier for release in self.releases(privacy, rounds=2)]
        assert noises == [2.0, 1.0]

    def test_what_does_not_go_together_is_refused(self):
        with pytest.raises(ValueError, match="goes with epsilon or noise_multiplier"):
            SiteLevel(clip=1.0, epsilon_per_round=1.0, noise_schedule=(1.0, 0.5))
        for wrong in ((), (1.0, 0.0), (-1.0,)):
            with pytest.raises(ValueError, match="noise_schedule"):
                self.private(noise_schedule=wrong)
        with pytest.raises(ValueError, match="noise_schedule"):
            DistributedSiteLevel(clip=1.0, epsilon=1.0, noise_schedule=(2.0,))


def cross_entropy(logits, labels, reduction):
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


def gradients_of(mode, noise=0.0, clip_norm=0.5, physical_batch=32, dims=3, rate=1.0, cases=10):
    """The gradient of one step of DP-SGD, and what plain autograd gives case by case."""
    model = build_model("small_cnn", channels=1, classes=2, dims=dims, norm="group", seed=0)
    images = torch.randn((cases, 1) + (12,) * dims, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(cases) % 2

    objective = Objective(lambda batch: (images[batch], labels[batch]), cross_entropy)
    single = []
    for case in range(cases):
        model.zero_grad()
        objective.of(model, *objective.take(torch.tensor([case]))).backward()
        single.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    privacy = DPSGD(clip=clip_norm, noise_multiplier=1.0, mode=mode, physical_batch=physical_batch)
    release = Release(noise, rate, 1)
    names, random = case_names(cases), SecretRandom(KEY)
    private = privacy.gradients(model, optimizer, release, names, privacy.clip, random)
    (batch,) = private.batches()
    private.compute(batch, objective)
    found = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    private.close()
    return found, torch.stack(single), batch, model


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost", "auto"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("physical_batch", [32, 4])
def test_every_mode_gives_the_mean_of_clipped_gradients(mode, dims, physical_batch):
    found, single, batch, _ = gradients_of(mode, dims=dims, physical_batch=physical_batch)
    assert len(batch) == 10
    norms = single.norm(dim=1)
    assert (norms > 0.5).any()
    expected = (single * (0.5 / norms).clamp(max=1.0)[:, None]).sum(dim=0) / 10
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_the_noise_of_a_step_is_that_of_the_multiplier_over_the_expected_batch():
    clean, *_ = gradients_of("hooks", rate=0.5, cases=20)
    noised, *_ = gradients_of("hooks", noise=3.0, rate=0.5, cases=20)
    noise = (noised - clean).numpy() * 10 / (3.0 * 0.5)
    assert noise.std() == pytest.approx(1.0, rel=0.05)
    assert stats.kstest(noise, "norm").pvalue > 1e-3


def test_a_step_that_draws_no_case_is_noise_alone():
    found, _, batch, _ = gradients_of("functorch", noise=1.0, rate=1e-9)
    assert len(batch) == 0
    assert torch.isfinite(found).all()
    assert found.abs().max() > 0


def test_poisson_batches_draw_each_case_on_its_own():
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    privacy = DPSGD(noise_multiplier=1.0)
    release = Release(1.0, 0.2, 2000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names, random = case_names(50), SecretRandom(KEY)
    private = privacy.gradients(model, optimizer, release, names, privacy.clip, random)
    sizes = [len(batch) for batch in private.batches()]
    private.close()
    assert len(sizes) == 2000
    assert np.mean(sizes) == pytest.approx(10, rel=0.05)
    assert np.var(sizes) == pytest.approx(50 * 0.2 * 0.8, rel=0.15)


def test_training_can_go_on_without_privacy_afterwards():
    *_, model = gradients_of("hooks")
    model(torch.zeros(1, 1, 12, 12, 12)).sum().backward()
    assert all(getattr(p, "grad_sample", None) is None for p in model.parameters())


def test_layers_that_mix_cases_are_refused_with_the_remedy():
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="batch", seed=0)
    with pytest.raises(ConsiliumError, match=r"BatchNorm.*Set model\.norm=group"):
        refuse_unsuitable(model)
    for norm in ("group", "instance"):
        for name in ("small_cnn", "dp_resnet", "resnet3d"):
            refuse_unsuitable(build_model(name, channels=1, classes=2, dims=3, norm=norm, seed=0))
