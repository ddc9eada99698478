"""Gradients in float32 are those of float64, case by case, on every processor and on a GPU.

`make numerical` runs these as on a processor without AVX-512.
"""

import copy

import pytest
import torch
from torch import nn

from federated.learning.segmentation_loss import dice_ce
from federated.privacy.case_gradients import case_gradients
from federated.training.loop import place
from federated.training.objective import Objective, gradients_of_cases
from tests.devices import DEVICES
from tests.federated.conftest import clear_of_kinks
from tests.networks import build_model

pytestmark = pytest.mark.numerical

CASES = 3
# Of the largest value of a case's gradient.
EXACT = 3e-5
# Sides, and from how many random images so many are clear of kinks.
NETWORKS = {
    ("small_cnn", 2): (12, 20),
    ("small_cnn", 3): (8, 60),
    ("shallow_cnn", 2): (12, 20),
    ("shallow_cnn", 3): (8, 60),
    ("dp_resnet", 2): (8, 60),
    ("unet", 2): (16, 40),
    ("unet", 3): (8, 60),
    ("nnunet", 2): (16, 40),
}
# Settings of a network, and whether it segments.
LEVELS = [
    {"features": 8 * 2**level, "kernel": [3, 3], "stride": [1 + (level > 0)] * 2}
    for level in range(3)
]
SETTINGS = {"unet": {"width": 8}, "nnunet": {"levels": LEVELS}}


def cross_entropy(logits, labels, reduction):
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


def soft_dice(logits, masks, reduction):
    losses = dice_ce(logits, masks)
    return losses.mean() if reduction == "mean" else losses


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda key: f"{key[0]}, {key[1]}D")
def problem(request, device):
    """A network, cases clear of kinks, their loss, and their gradients by float64 autograd.

    The network is placed as a worker places it, with channels last.
    """
    (name, dims), (side, tried) = request.param, NETWORKS[request.param]
    norm = "instance" if (name, dims) in {("unet", 2), ("nnunet", 2)} else "group"
    own = SETTINGS.get(name, {})
    model = build_model(name, channels=1, classes=2, dims=dims, norm=norm, seed=0, **own).train()
    drawn = torch.randn((tried, 1) + (side,) * dims, generator=torch.Generator().manual_seed(0))
    images = drawn[clear_of_kinks(model, drawn)][:CASES]
    assert len(images) == CASES
    targets, loss = torch.arange(CASES) % 2, cross_entropy
    if own:
        targets, loss = (images[:, 0] > 0.5).long(), soft_dice
    exact = copy.deepcopy(model).double()
    gradients = []
    for image, target in zip(images.double(), targets, strict=True):
        found = torch.autograd.grad(
            loss(exact(image[None]), target[None], "mean"), [*exact.parameters()]
        )
        gradients.append(torch.cat([part.flatten() for part in found]))
    model = place(model, device)
    return model, images.to(device), targets.to(device), loss, torch.stack(gradients).to(device)


def assert_exact(found, exact):
    error = (found - exact).abs().amax(dim=-1) / exact.abs().amax(dim=-1)
    assert float(error.max()) <= EXACT


@pytest.mark.parametrize("vectorised", [True, False])
def test_of_each_case(problem, vectorised):
    model, images, targets, loss, exact = problem

    def of_case(network, image, target):
        return loss(network(image), target, "mean")

    parameters = dict(model.named_parameters())
    found = gradients_of_cases(model, parameters, of_case, vectorised)(images, targets)
    assert_exact(torch.cat([found[name].flatten(1) for name in parameters], dim=1), exact)


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_of_dp_sgd_clipped_and_summed(problem, mode):
    model, images, targets, loss, exact = problem
    parameters = list(model.parameters())
    norms = exact.norm(dim=1)
    clip = float(norms.median())  # clips some
    objective = Objective(lambda cases: (images[cases], targets[cases]), loss)
    of_mode = case_gradients(mode, model, parameters)
    sums, found_norms = of_mode.clipped_sum(torch.arange(CASES), objective, clip)
    of_mode.close()
    expected = (exact * (clip / norms).clamp(max=1.0)[:, None]).sum(dim=0)
    assert_exact(torch.cat([part.flatten() for part in sums]), expected)
    torch.testing.assert_close(found_norms.double(), norms, rtol=EXACT, atol=0)


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_a_case_adds_no_more_than_the_clipping_norm(problem, mode):
    model, images, targets, loss, exact = problem
    clip = float(exact.norm(dim=1).min()) / 10
    objective = Objective(lambda cases: (images[cases], targets[cases]), loss)
    of_mode = case_gradients(mode, model, list(model.parameters()))
    for case in range(CASES):
        sums, _ = of_mode.clipped_sum(torch.tensor([case, case]), objective, clip)
        added = torch.cat([part.flatten() for part in sums]).double().norm()
        assert float(added) == pytest.approx(2 * clip, rel=EXACT)
    of_mode.close()


def test_of_a_step_of_ordinary_training(problem):
    model, images, targets, loss, exact = problem
    found = torch.autograd.grad(loss(model(images), targets, "mean"), [*model.parameters()])
    assert_exact(torch.cat([part.flatten() for part in found]), exact.mean(dim=0))
