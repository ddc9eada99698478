import numpy as np
import pytest
import torch

from federated.data.augmentation import augment, class_weights, draw_epoch, random_flips
from federated.data.cases import LabelledImages
from federated.data.medmnist.files import dataset_info
from federated.errors import ConsiliumError
from federated.learning.classification import make_loss, predict
from federated.settings.sections import TrainingSettings
from federated.strategies import FedAvg, FedProx
from federated.training.loop import Turn, choose_device, place, train
from federated.training.masked_rule import MaskedRule
from federated.training.optimization import freeze, learning_rate, local_work, make_optimizer
from federated.update import Layout
from models.norm import norm_tensors
from tests.conftest import tiny_volumes
from tests.federated.conftest import site_start
from tests.networks import build_model

CPU = torch.device("cpu")
ARRAYS = tiny_volumes(side=16)
IMAGES = ARRAYS["train_images"][:40, None]
LABELS = ARRAYS["train_labels"][:40, 0].astype(np.int64)
INFO = dataset_info("adrenalmnist3d")


def trained(strategy=None, site="site-00", round_number=1, images=IMAGES, norm="group", **settings):
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm=norm, seed=0)
    model = place(model, CPU)
    settings = TrainingSettings(**({"lr": 2e-3, "batch_size": 16} | settings))
    cases = LabelledImages(images, LABELS[: len(images)])
    rule = (strategy or FedAvg()).local_rule(model, site_start(model))
    result = train(
        model,
        cases,
        settings,
        rule,
        make_loss(cases, settings, INFO, CPU),
        Turn(0, site, round_number, 10),
    )
    return Layout.of(model).flatten(model), result, model


def test_training_is_a_function_of_seed_round_and_site():
    first, again = trained()[0], trained()[0]
    np.testing.assert_array_equal(first, again)
    assert (first != trained(site="site-01")[0]).any()
    assert (first != trained(round_number=2)[0]).any()


def test_the_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trained()[0]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, trained()[0])


def test_training_learns():
    _, result, model = trained(local_epochs=12, lr=5e-3)
    assert result.steps == 12 * 3
    test = ARRAYS["test_images"][:, None]
    right = predict(model, test, CPU, 2).argmax(1) == ARRAYS["test_labels"][:, 0]
    assert right.mean() > 0.9


def test_a_proximal_term_keeps_the_weights_nearer():
    start = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    origin = Layout.of(start).flatten(start)

    def moved(strategy):
        weights, _, _ = trained(strategy, optimizer="sgd", lr=0.01, local_epochs=3)
        return np.linalg.norm(weights - origin)

    assert moved(FedProx(mu=10.0)) < 0.8 * moved(FedAvg())


def test_the_cosine_schedule_falls_from_the_first_round_towards_zero():
    cosine = TrainingSettings(lr=0.1, schedule="cosine")
    rates = [learning_rate(cosine, n, 10) for n in range(1, 11)]
    assert rates[0] == 0.1
    assert rates[5] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.005
    constant = TrainingSettings(lr=0.1)
    assert {learning_rate(constant, n, 10) for n in range(1, 11)} == {0.1}


def test_batch_norm_takes_a_last_batch_of_one_case():
    assert trained(norm="batch", images=IMAGES[:17])[1].steps == 1


def test_a_diverging_loss_stops_with_the_remedy():
    with pytest.raises(ConsiliumError, match=r"site-00 in round 1 diverged.*training\.lr"):
        trained(optimizer="sgd", lr=1e12, local_epochs=3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(ConsiliumError, match=r"training\.device=auto"):
        choose_device("cuda")


def test_predictions_are_probabilities_even_of_no_image():
    model = build_model("small_cnn", channels=1, classes=3, dims=3, norm="group", seed=0)
    probabilities = predict(model, IMAGES, CPU, 3)
    assert probabilities.shape == (40, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert predict(model, IMAGES[:0], CPU, 3).shape == (0, 3)


def test_flips_mirror_whole_cases():
    images = torch.arange(2 * 8.0).reshape(2, 1, 2, 2, 2)
    seen = set()
    for seed in range(40):
        flipped = random_flips(images, torch.Generator().manual_seed(seed))
        assert torch.equal(flipped.flatten(1).sort(1).values, images.flatten(1))
        seen.add(tuple(flipped[0].flatten().tolist()))
    assert len(seen) == 8


def start_model(norm="group"):
    return build_model("small_cnn", channels=1, classes=2, dims=3, norm=norm, seed=0)


def changed(after, norm="group"):
    before = start_model(norm).state_dict()
    return {n for n, t in after.state_dict().items() if not torch.equal(t, before[n])}


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_frozen_backbone_stays_to_the_last_bit_while_the_head_learns(norm):
    _, _, model = trained(norm=norm, freeze_rounds=1)
    assert changed(model, norm) == {"head.weight", "head.bias"}


def test_the_backbone_thaws_after_its_frozen_rounds():
    _, _, model = trained(freeze_rounds=1, round_number=2)
    assert changed(model) == set(model.state_dict())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_only_layers_that_are_named_are_trained(norm):
    _, _, model = trained(norm=norm, trainable=["norm", "head"])
    assert changed(model, norm) == norm_tensors(model) | {"head.weight", "head.bias"}
    first = next(iter(start_model().state_dict())).rsplit(".", 1)[0]
    _, _, model = trained(trainable=[first])
    assert changed(model) == {f"{first}.weight", f"{first}.bias"} & set(model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["group", "instance"])
def test_a_norm_learns_behind_a_frozen_convolution_in_channels_last(norm, dims, channels, dtype):
    """torch 2.13 ends the process in the backward pass, where nobody prevents it.

    Features of volumes are in channels last in float32 alone.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, channels, *([28] * dims), generator=generator, dtype=dtype)
    gradients = []
    for placed in (True, False):
        model = build_model("small_cnn", channels=channels, classes=2, dims=dims, norm=norm, seed=0)
        model.to(dtype)
        if placed:
            place(model, CPU)
        for _ in range(2):
            freeze(model, norm_tensors(model))
        assert max(len(each._forward_pre_hooks) for each in model.modules()) == 1
        model(images).square().mean().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(norm_tensors(model))
    torch.testing.assert_close(*gradients)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConsiliumError, match=r"trainable names 'neck'.*There are norm, .*head"):
        trained(trainable=["norm", "neck"])


def test_the_backbone_learns_at_its_own_rate():
    groups = make_optimizer(start_model(), TrainingSettings(backbone_lr=0.1), 0.02).param_groups
    rates = {len(group["params"]): group["lr"] for group in groups}
    assert rates == {2: 0.02, 14: pytest.approx(0.002)}


@pytest.mark.parametrize("cases", [1, 15, 16, 17, 33, 40])
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("amount", [{"local_epochs": 2}, {"local_steps": 1}, {"local_steps": 4}])
def test_the_work_that_the_server_expects_is_the_work_that_is_done(cases, norm, amount):
    if norm == "batch" and cases == 1:
        pytest.skip("BatchNorm cannot train on a single case")
    settings = {"batch_size": 16, **amount}
    steps = trained(norm=norm, images=IMAGES[:cases], **settings)[1].steps
    work = local_work(cases, TrainingSettings(**settings), norm == "batch")
    assert work.steps == steps


def test_as_many_steps_as_an_epoch_has_are_an_epoch():
    settings = {"batch_size": 16, "optimizer": "sgd"}
    epoch = trained(images=IMAGES[:40], **settings)[0]
    for steps, same in ((3, True), (2, False)):
        model, result, _ = trained(images=IMAGES[:40], local_steps=steps, **settings)
        assert result.steps == steps
        assert np.array_equal(model, epoch) == same


def test_class_weights_make_every_class_a_site_has_count_alike():
    labels = torch.tensor([0] * 6 + [2] * 2)
    weights = class_weights(labels, 4)
    assert weights.tolist() == pytest.approx([8 / 12, 0.0, 2.0, 0.0])
    assert float(weights[0] * 6) == float(weights[2] * 2) == 4


def test_balanced_sampling_draws_a_rare_class_as_often_as_a_common_one():
    labels = torch.tensor([0] * 900 + [1] * 100)
    drawn = labels[draw_epoch(labels, "balanced", torch.Generator().manual_seed(0))]
    assert len(drawn) == 1000
    assert 430 < int(drawn.sum()) < 570
    order = draw_epoch(labels, "shuffle", torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(1000))


def test_class_weights_and_balanced_sampling_change_training():
    plain = trained()[0]
    # The cases are balanced already, so weights alone change nothing; all of one class but some do.
    skewed = np.array([0] * 34 + [1] * 6)
    np.testing.assert_array_equal(plain, trained(class_weights="balanced")[0])
    assert (plain != trained(sampling="balanced")[0]).any()
    weights = class_weights(torch.from_numpy(skewed), 2)
    assert weights[1] > 5 * weights[0]


@pytest.mark.parametrize("shape", [(3, 1, 12, 12, 12), (3, 3, 12, 12)])
def test_torchio_augmentation_is_seeded_and_keeps_shape_and_range(shape):
    images = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    before = torch.get_rng_state()
    first, again, other = (
        augment(images, "torchio", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    assert not torch.equal(first[0], first[1])


def test_training_in_bfloat16_is_close_to_float32_and_keeps_float32_weights():
    _, result, model = trained(precision="bfloat16", images=IMAGES[:16])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    full = trained(images=IMAGES[:16])[1]
    assert result.loss != full.loss
    assert result.loss == pytest.approx(full.loss, rel=0.02)


def test_a_mask_holds_gradients_after_the_strategys_own_term():
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    layout = Layout.of(model)
    moves = np.arange(layout.size) % 3 == 0
    strategy = FedProx(mu=1.0).local_rule(model, site_start(model))
    for parameter in model.parameters():
        parameter.data += 1
        parameter.grad = torch.ones_like(parameter)
    MaskedRule(strategy, layout, moves).adjust_gradients(model.named_parameters())
    gradients = np.concatenate([p.grad.ravel().numpy() for p in model.parameters()])
    # 1 of the loss and 1 of the proximal term.
    np.testing.assert_allclose(gradients, np.where(moves, 2, 0), rtol=1e-5)


def test_float16_without_a_gpu_is_refused():
    with pytest.raises(ConsiliumError, match="needs a CUDA device"):
        trained(precision="float16")


@pytest.mark.parametrize(
    ("named", "made"),
    [
        ("adamw", lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)),
        ("sgd", lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)),
    ],
)
def test_an_optimizer_takes_the_steps_of_torchs_own_to_the_last_bit(named, made):
    settings = TrainingSettings(optimizer=named, momentum=0.9, weight_decay=0.01)
    found = []
    for make in (lambda model: make_optimizer(model, settings, 0.1), made_of(made)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        optimizer = make(model)
        for step in range(5):
            optimizer.zero_grad()
            model(torch.full((3, 5), step / 3)).square().sum().backward()
            optimizer.step()
        # Its steps are not differentiated themselves, and its gradients can be thrown away.
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*found)


def made_of(made):
    """What makes an optimizer of a whole model."""
    return lambda model: made(list(model.parameters()))
