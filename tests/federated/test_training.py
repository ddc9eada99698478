import numpy as np
import pytest
import torch

from federated.config import TrainingSettings
from federated.errors import ConsiliumError
from federated.strategies import FedAvg, FedProx
from federated.training import choose_device, learning_rate, place, predict, random_flips, train
from federated.update import Layout
from models import build_model
from tests.conftest import tiny_arrays

CPU = torch.device("cpu")
ARRAYS = tiny_arrays()
IMAGES = ARRAYS["train_images"][:40, None]
LABELS = ARRAYS["train_labels"][:40, 0].astype(np.int64)


def trained(strategy=None, site="site-00", round_number=1, images=IMAGES, norm="group", **settings):
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm=norm, seed=0)
    model = place(model, CPU)
    settings = TrainingSettings(**({"lr": 2e-3, "batch_size": 16} | settings))
    result = train(
        model,
        images,
        LABELS[: len(images)],
        settings,
        strategy or FedAvg(),
        seed=0,
        round_number=round_number,
        rounds=10,
        site=site,
        device=CPU,
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
