"""Training on a GPU: the same numbers each time, and those of a CPU but for rounding."""

import numpy as np
import pytest
import torch
from torch import nn

from federated.data.cases import LabelledImages
from federated.learning.classification import predict
from federated.learning.segmentation_loss import dice_ce
from federated.privacy import DPSGD
from federated.privacy.accounting import Release
from federated.privacy.noise import SecretRandom
from federated.settings.sections import TrainingSettings
from federated.strategies import APFL, FedAvg, FedProx, Scaffold
from federated.strategies.scaffold import CONTROL
from federated.training.loop import Turn, place, train
from federated.update import Layout
from tests.conftest import tiny_volumes
from tests.devices import ON_CUDA
from tests.federated.conftest import case_names, site_start
from tests.networks import build_model

pytestmark = [*ON_CUDA]

# Name, dimensions, side of an image, and settings.
NETWORKS = {
    "small_cnn": ("small_cnn", 3, 28, {}),
    "small_cnn, batch": ("small_cnn", 3, 28, {"norm": "batch"}),
    "dp_resnet": ("dp_resnet", 2, 28, {}),
    "resnet3d": ("resnet3d", 3, 28, {}),
    "resnet3d, acs": ("resnet3d", 3, 28, {"conv": "acs"}),
    "unet, 2D": ("unet", 2, 48, {"width": 8, "norm": "instance"}),
    "unet, 3D": ("unet", 3, 32, {"width": 8, "norm": "instance"}),
    "unet, deep supervision": ("unet", 3, 32, {"width": 8, "deep_supervision": True}),
}
CASES = 12


def entropy(logits, labels, reduction):
    return nn.functional.cross_entropy(logits, labels, reduction=reduction)


def soft_dice(logits, masks, reduction):
    losses = dice_ce(logits, masks)
    return losses.mean() if reduction == "mean" else losses


class Segmented(LabelledImages):
    """Images whose mask is where they are bright."""

    def load_batch(self, indices, how, draws):
        images, _ = super().load_batch(indices, how, draws)
        return images, (images[:, 0] > 0.5).long()


def trained(network, device, strategy=None, private=None, **settings):
    """The weights after a round, its result, and the rule of the strategy."""
    name, dims, side, own = NETWORKS[network]
    own = {"norm": "group"} | own
    model = build_model(name, channels=1, classes=2, dims=dims, seed=0, **own)
    model = place(model, torch.device(device))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (CASES, 1) + (side,) * dims, dtype=np.uint8)
    kind = Segmented if name == "unet" else LabelledImages
    cases = kind(images, np.arange(CASES) % 2)
    settings = {"lr": 1e-3, "batch_size": 4, "device": "cuda"} | settings
    strategy = strategy or FedAvg()
    start = site_start(model)
    start = site_start(model, broadcast=dict(strategy.open_server(start.weights).broadcast))
    rule = strategy.passes(start)[0].rule(model)
    result = train(
        model,
        cases,
        TrainingSettings(**settings),
        rule,
        soft_dice if name == "unet" else entropy,
        Turn(0, "site-00"),
        private=private,
    )
    return Layout.of(model).flatten(model), result, rule


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_round_comes_out_the_same_to_the_last_bit(network, precision):
    found = [trained(network, "cuda", precision=precision)[0] for _ in range(3)]
    for again in found[1:]:
        np.testing.assert_array_equal(found[0], again)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_step_is_that_of_the_cpu(network):
    """With plain SGD, whose step is the gradient; Adam's first steps are its sign."""
    settings = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 0, "local_steps": 1}
    one, other = (trained(network, device, **settings) for device in ("cpu", "cuda"))
    start = trained(network, "cpu", **settings | {"lr": 1e-30})[0]
    # A value at the kink of a ReLU or a max-pooling falls to either side.
    assert np.linalg.norm(other[0] - one[0]) <= 1e-2 * np.linalg.norm(one[0] - start)
    assert other[1].loss == pytest.approx(one[1].loss, rel=1e-5)
    assert other[1].steps == one[1].steps == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_near_float32_and_keeps_its_weights(precision):
    settings = {"optimizer": "sgd", "lr": 0.01, "local_steps": 1}
    full, mixed = (
        trained("small_cnn", "cuda", precision=p, **settings) for p in ("float32", precision)
    )
    assert mixed[1].loss == pytest.approx(full[1].loss, rel=0.02)
    assert mixed[1].loss != full[1].loss
    assert mixed[0].dtype == np.float32


@pytest.mark.parametrize("strategy", [Scaffold(), APFL(), FedProx(mu=0.1)], ids=lambda s: s.name)
def test_in_float16_a_strategy_sees_only_gradients_that_are_numbers(strategy):
    """The loss's own gradient is far too large for float16 at the first scale."""
    weights, result, rule = trained(
        "small_cnn", "cuda", strategy, precision="float16", batch_size=1, class_weights="none"
    )
    assert result.steps == CASES
    assert np.isfinite(weights).all()
    if isinstance(strategy, Scaffold):
        assert rule.steps == CASES
        assert all(bool(total.isfinite().all()) for total in rule.sums.values())


@pytest.mark.parametrize("network", ["small_cnn", "dp_resnet", "unet, 2D", "unet, 3D"])
@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_a_private_round_is_the_same_each_time_and_its_noise_that_of_the_cpu(network, mode):
    def private(noise):
        privacy = DPSGD(clip=0.5, noise_multiplier=1.0, mode=mode, physical_batch=5)

        def make(model, optimizer):
            names, random = case_names(CASES), SecretRandom(bytes(32))
            return privacy.gradients(model, optimizer, Release(noise, 0.5, 2), names, 0.5, random)

        return make

    settings = {"optimizer": "sgd", "lr": 0.1, "momentum": 0, "weight_decay": 0}

    def found(device, noise):
        return trained(network, device, private=private(noise), **settings)[0]

    noised, again = found("cuda", 1.0), found("cuda", 1.0)
    np.testing.assert_array_equal(noised, again)
    # On the CPU the noise is the same, and with much of it little else is seen.
    on_cuda, on_cpu = found("cuda", 1e4), found("cpu", 1e4)
    np.testing.assert_allclose(on_cuda, on_cpu, rtol=1e-3, atol=1e-3 * float(np.abs(on_cpu).max()))


def test_predictions_are_those_of_the_cpu():
    images = tiny_volumes()["test_images"][:, None]
    found = []
    for device in map(torch.device, ("cpu", "cuda")):
        model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
        found.append(predict(place(model, device), images, device, 2))
    np.testing.assert_allclose(found[1], found[0], atol=1e-5)


def test_what_scaffold_keeps_is_on_the_cpu():
    model = place(build_model("small_cnn", channels=1, classes=2, dims=3), torch.device("cuda"))
    strategy = Scaffold()
    start = site_start(model)
    start = site_start(model, broadcast=dict(strategy.open_server(start.weights).broadcast))
    _, result, rule = trained("small_cnn", "cuda", strategy)
    from federated.training.rule import LocalWork

    sent, kept = strategy.site_update(start.weights, rule, LocalWork(result.steps), start)
    assert isinstance(kept[CONTROL], np.ndarray)
    assert np.isfinite(sent).all()
