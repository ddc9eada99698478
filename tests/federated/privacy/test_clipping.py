"""A case counts with at most the clipping norm, also one whose gradient is no number."""

import pytest
import torch
from torch import nn

from federated.privacy import DPSGD
from federated.privacy.accounting import Release
from federated.privacy.clipping import clip_and_sum, clipped
from federated.privacy.noise import SecretRandom
from federated.training.objective import Objective
from tests.federated.conftest import case_names
from tests.networks import build_model

BAD = [float("nan"), float("inf"), -float("inf"), 1e30]  # the last one's square is infinite


def cross_entropy(logits, labels, reduction):
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


@pytest.mark.parametrize("value", BAD)
def test_a_vector_without_a_finite_norm_counts_as_zero(value):
    vectors = torch.tensor([[3.0, 4.0], [value, 1.0], [0.3, 0.4]])
    expected = torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.3, 0.4]])
    torch.testing.assert_close(clipped(vectors, 1.0), expected)
    sums, norms = clip_and_sum([vectors[:, :1], vectors[:, 1:]], 1.0)
    torch.testing.assert_close(torch.cat(sums), expected.sum(dim=0))
    assert not torch.isfinite(norms[1])


def step(mode, images, cases, clip=0.01, adaptive=None, dims=2):
    """The sum of a step over some of the images, and the norm that the next step clips to."""
    model = build_model("small_cnn", channels=1, classes=2, dims=dims, norm="group", seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    privacy = DPSGD(clip=clip, noise_multiplier=1.0, mode=mode, adaptive=adaptive)
    private = privacy.gradients(
        model,
        optimizer,
        Release(0.0, 1.0, 1),
        case_names(len(cases)),
        clip,
        SecretRandom(bytes(32)),
    )
    (batch,) = private.batches()

    def take(indices):
        chosen = torch.tensor(cases)[indices]
        return images[chosen], chosen % 2

    private.compute(batch, Objective(take, cross_entropy))
    private.close()
    return torch.cat([p.grad.flatten() for p in model.parameters()]) * len(cases), private.clip


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("value", BAD[:2])
def test_a_case_whose_gradient_is_no_number_leaves_the_sum_of_the_others(mode, dims, value):
    images = torch.randn((6, 1) + (12,) * dims, generator=torch.Generator().manual_seed(0))
    images[2].flatten()[5] = value
    others = [0, 1, 3, 4, 5]
    found, _ = step(mode, images, range(6), dims=dims)
    expected, _ = step(mode, images, others, dims=dims)
    assert expected.norm() > 0.01
    assert float((found - expected).norm()) < 1e-4 * 0.01


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_a_step_of_nothing_but_such_cases_is_zero(mode):
    found, _ = step(mode, torch.full((3, 1, 12, 12), float("nan")), range(3))
    assert not found.any()


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_it_moves_the_adaptive_norm_as_any_case_above_it(mode):
    images = torch.randn((4, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    adaptive = {"quantile": 0.5, "rate": 0.2}
    clip = step(mode, images, range(4), clip=1e-3, adaptive=adaptive)[1]
    images[1] = float("nan")
    assert step(mode, images, range(4), clip=1e-3, adaptive=adaptive)[1] == clip > 1e-3
