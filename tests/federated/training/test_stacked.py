"""Trainings that are taken together come to what each comes to alone."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from federated.configuration.load import resolve
from federated.data.cases import LabelledImages
from federated.data.medmnist.files import dataset_info
from federated.errors import ConsiliumError
from federated.learning.classification import make_loss
from federated.rounds.local_training import LocalTask, round_steps, train_round
from federated.settings.networks import NETWORKS
from federated.strategies import STRATEGIES
from federated.strategies.base import SiteStart
from federated.strategies.resfim.spectral_style import style_of
from federated.training import stacked
from federated.training.loop import place
from federated.training.optimizers import SGD, AdamW
from federated.training.stacked import stacked_logits, step_together, take_together
from federated.update import Layout
from tests.devices import DEVICES
from tests.networks import build_model

CPU = torch.device("cpu")
# Training cases of each site; with batches of 6 all but the last site have a full batch.
SITES = {"site-00": 14, "site-01": 13, "site-02": 8, "site-03": 1}
DATASETS = {2: "bloodmnist", 3: "adrenalmnist3d"}
SGD_ = {"optimizer": "sgd", "lr": 0.05}


def experiment(dims=2, strategy="fedavg", norm="group", network="small_cnn", **training):
    sections = {
        "rounds": 3,
        "data": {"dataset": DATASETS[dims], "source": "files"},
        "model": {"name": network, "norm": norm},
        "training": {"batch_size": 6, "device": "cpu", **SGD_, **training},
        "strategy": {"name": strategy},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "privacy": {"name": "none"},
    }
    return resolve("stacked", sections, "a test")


def cases_of(dims, sites=SITES, kind=None):
    random, channels = np.random.default_rng(dims), dataset_info(DATASETS[dims]).channels
    return {
        site: (kind or Doubled)(
            random.integers(0, 255, (count, channels, *(16,) * dims), dtype=np.uint8),
            np.arange(count) % 2,
        )
        for site, count in sites.items()
    }


@pytest.fixture
def sizes(monkeypatch):
    """How many steps were taken in one call, each time that it was more than one."""
    found = []

    def counted(steps):
        found.append(len(steps))
        return taken(steps)

    taken = stacked.take_stacked
    monkeypatch.setattr(stacked, "take_stacked", counted)
    return found


@dataclass(frozen=True)
class Doubled(LabelledImages):
    """Cases for a network in float64, in which no value is at a kink by rounding."""

    def load_batch(self, indices, how, draws):
        images, labels = super().load_batch(indices, how, draws)
        return images.double(), labels


def begun(own, cases, round_number=1, memories=None, device="cpu"):
    """What each site trains with and starts from."""
    info = dataset_info(own.data.dataset)
    form = {"channels": info.channels, "classes": len(info.classes), "dims": info.dims}
    model = own.model.build(**form, seed=0)
    layout = Layout.of(model, own.strategy.personal(model))
    weights = layout.flatten(model)
    broadcast = own.strategy.open_server(weights[layout.shared]).broadcast
    look = torch.Generator().manual_seed(0)
    images = torch.rand((4, info.channels, *(16,) * info.dims), generator=look)
    styles = [style_of(images, 0.1).mean(0).numpy()]
    given = {}
    for site, held in cases.items():
        loss = make_loss(held, own.training, info, torch.device(device))
        network = place(own.model.build(**form, seed=0), torch.device(device))
        if isinstance(held, Doubled):
            network = network.double()
        task = LocalTask(own, network, held, loss, lambda: styles)
        memory = memories[site] if memories else {}
        given[site] = task, SiteStart(layout, weights, broadcast, memory, site, round_number, 3)
    return given


def alone(given):
    """What a round comes to at each site by itself."""
    return {site: train_round(*each, None, None) for site, each in given.items()}


def together(given):
    """What it comes to at all of them at once."""
    return take_together({site: round_steps(*each, None, None) for site, each in given.items()})


def assert_close(found, expected, much=1e-6):
    assert np.linalg.norm(found - expected) <= much * np.linalg.norm(expected) + 1e-7


def assert_same(own, cases=None, rounds=(1, 2), much=1e-6, device="cpu"):
    cases = cases or cases_of(dataset_info(own.data.dataset).dims)
    memories = None
    for number in rounds:
        expected = alone(begun(own, cases, number, memories, device))
        found = together(begun(own, cases, number, memories, device))
        assert found.keys() == expected.keys()
        for site, (update, kept, loss) in expected.items():
            own_update, own_kept, own_loss = found[site]
            assert replace(own_update, vector=update.vector) == update
            assert_close(own_update.vector, update.vector, much)
            assert own_loss == pytest.approx(loss, rel=1e-4)
            assert own_kept.keys() == kept.keys()
            for name, value in kept.items():
                assert_close(own_kept[name], value, much)
        memories = {site: kept for site, (_, kept, _) in expected.items()}


@pytest.mark.parametrize(
    "strategy",
    [each.model_fields["name"].default for each in STRATEGIES if not each.pools_cases],
)
@pytest.mark.parametrize("device", DEVICES)
def test_every_strategy_comes_to_the_same(strategy, device, sizes):
    assert_same(experiment(strategy=strategy), device=device)
    # Two full batches of the first sites, and one of the third.
    assert Counter(sizes)[3] >= 2
    assert Counter(sizes)[2] >= 2


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_in_float32_they_come_to_the_same_within_rounding(dims, device, sizes):
    cases = cases_of(dims, kind=LabelledImages)
    assert_same(experiment(dims, "fedprox"), cases, rounds=(1,), much=1e-4, device=device)
    assert sizes == [3, 2]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("device", DEVICES)
def test_they_come_to_the_very_same_each_time(dims, device):
    own = experiment(dims, optimizer="adamw", lr=1e-3)
    cases = cases_of(dims, kind=LabelledImages)
    first, second = (together(begun(own, cases, device=device)) for _ in range(2))
    for site, (update, _, _) in first.items():
        np.testing.assert_array_equal(update.vector, second[site][0].vector)


@pytest.mark.parametrize("strategy", ["fedprox", "scaffold"])
def test_volumes_come_to_the_same(strategy, sizes):
    assert_same(experiment(3, strategy), rounds=(1,))
    assert sizes == [3, 2]


@pytest.mark.parametrize(
    "training",
    [
        {"local_epochs": 2},
        {"local_steps": 5},
        {"schedule": "cosine"},
        {"freeze_rounds": 1},
        {"trainable": ["features.4", "head"], "backbone_lr": 0.5},
        {"momentum": 0.0, "augment": "none"},
        {"sampling": "balanced", "class_weights": "balanced"},
        {"optimizer": "adamw", "lr": 1e-3},
    ],
    ids=lambda training: next(iter(training)),
)
def test_settings_of_the_loop_come_to_the_same(training, sizes):
    assert_same(experiment(**training))
    assert sizes


@pytest.mark.parametrize("training", [{}, {"trainable": ["head"]}], ids=["trained", "frozen"])
def test_each_site_keeps_the_running_statistics_of_its_own_batch_norm(training, sizes):
    own = experiment(norm="batch", strategy="fedbn", **training)
    cases = cases_of(2, {"site-00": 13, "site-01": 12, "site-02": 12})
    assert_same(own, cases)
    assert sizes
    given = begun(own, cases)
    together(given)
    counted = [
        {int(value) for name, value in task.model.named_buffers() if "tracked" in name}
        for task, _ in given.values()
    ]
    # 13 cases are batches of 6 and 7.
    assert counted == [{2 if not training else 0}] * 3


def test_a_layer_that_centres_has_the_mean_of_its_own_site(sizes):
    assert_same(experiment(network="shallow_cnn"))
    assert sizes


def test_one_site_that_diverges_ends_no_other(sizes):
    own, cases = experiment(augment="none"), cases_of(2)
    expected, given = alone(begun(own, cases)), begun(own, cases)
    task, start = given["site-01"]

    def infinite(logits, targets, reduction):
        return task.loss(logits, targets, reduction) * float("inf")

    given["site-01"] = replace(task, loss=infinite), start
    found = together(given)
    assert sizes == [3, 2]
    error = found.pop("site-01")
    assert isinstance(error, ConsiliumError)
    assert "Training at site-01 in round 1 diverged" in str(error)
    for site, (update, _, _) in found.items():
        assert_close(update.vector, expected[site][0].vector)


@pytest.mark.parametrize("kind", [AdamW, SGD], ids=["adamw", "sgd"])
def test_one_step_of_several_optimisers_is_that_of_each(kind):
    def made():
        generator = torch.Generator().manual_seed(0)
        values = [torch.randn(3, 2, generator=generator) for _ in range(6)]
        parameters = [torch.nn.Parameter(value) for value in values]
        optimizers = [
            kind(
                [
                    {"params": parameters[n : n + 1]},
                    {"params": parameters[n + 1 : n + 3], "lr": 0.2},
                ],
                lr=0.1,
                weight_decay=0.1,
                **({"momentum": 0.9} if kind is SGD else {}),
            )
            for n in (0, 3)
        ]
        return parameters, optimizers

    (one, each_alone), (other, at_once) = made(), made()
    generator = torch.Generator().manual_seed(1)
    # The second one is alone in the second step, and one of its values has no gradient at first.
    for number, due in enumerate([(0, 1), (1,), (0, 1)]):
        for mine, yours in zip(one, other, strict=True):
            mine.grad = torch.randn(3, 2, generator=generator)
            yours.grad = mine.grad.clone()
        if number == 0:
            one[4].grad = other[4].grad = None
        for each in due:
            each_alone[each].step()
        step_together([at_once[each] for each in due])
    assert all(torch.equal(mine, yours) for mine, yours in zip(one, other, strict=True))


LEVELS = [
    {"features": 8, "kernel": (3, 3), "stride": (1, 1)},
    {"features": 16, "kernel": (3, 3), "stride": (2, 2)},
]
OWN = {
    "resnet3d": {"conv": "2.5d"},
    "nnunet": {"levels": LEVELS},
    "unet": {"width": 8, "deep_supervision": True},
}


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(
    "network", [each for each in NETWORKS if each.stated("stacks")], ids=lambda each: each.__name__
)
@pytest.mark.parametrize("device", DEVICES)
def test_a_network_that_says_that_it_stacks_gives_each_the_same(network, norm, device):
    """In float64, in which no value is at a kink by rounding."""
    name, dims = network.model_fields["name"].default, 2 if 2 in network.dims else 3

    def made():
        return [
            place(
                build_model(
                    name,
                    channels=1,
                    classes=2,
                    dims=dims,
                    norm=norm,
                    seed=seed,
                    **OWN.get(name, {}),
                ),
                CPU,
            )
            .double()
            .train()
            for seed in range(2)
        ]

    side = 32 if dims == 2 else 16
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 2, 1, *(side,) * dims), generator=generator, dtype=torch.float64)
    images = images.to(device)
    mine, yours = made(), made()
    expected = [model(image) for model, image in zip(mine, images, strict=True)]
    found = stacked_logits(yours, list(images))
    for logits in (expected, found):
        torch.autograd.backward([(each**2).mean() for each in logits])
    for one, other in zip(mine, yours, strict=True):
        scale = max(float(p.grad.abs().max()) for p in one.parameters())
        for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
            assert float((p.grad - q.grad).abs().max()) <= 1e-9 * scale, name
        for p, q in zip(one.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_a_network_that_draws_at_random_is_not_computed_together():
    models = [torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout()) for _ in range(2)]
    with pytest.raises(RuntimeError, match="randomness"):
        stacked_logits(models, [torch.ones(3, 2)] * 2)
