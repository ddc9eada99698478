import numpy as np
import pytest
import torch

from federated.data.cases import LabelledImages
from federated.data.dataset import to_float
from federated.data.medmnist.files import dataset_info
from federated.data.records import identities
from federated.learning.classification import make_loss
from federated.privacy import DPSGD
from federated.privacy.accounting import Release
from federated.privacy.dp_sgd import clipped
from federated.privacy.noise import SecretRandom
from federated.settings.sections import TrainingSettings
from federated.strategies import FedAvg
from federated.training.loop import Turn, train
from federated.update import Layout
from models import centring_of
from tests.conftest import tiny_volumes
from tests.federated.conftest import site_start
from tests.networks import build_model

ARRAYS = tiny_volumes(side=16)
IMAGES = ARRAYS["train_images"][:40, None]
LABELS = ARRAYS["train_labels"][:40, 0].astype(np.int64)
CASES = LabelledImages(IMAGES, LABELS)
INFO = dataset_info("adrenalmnist3d")


def shallow():
    return build_model("shallow_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)


def features():
    with torch.no_grad():
        found: torch.Tensor = shallow().features(torch.from_numpy(to_float(IMAGES)))
    return found


def mean_after(round_number=1, noise=None, rate=1.0, steps=1, bound=None, key=b"k" * 32):
    model = shallow()
    layer = centring_of(model)
    layer.bound = bound or layer.bound
    private = None
    if noise is not None:
        privacy = DPSGD(clip=0.1, noise_multiplier=1.0, physical_batch=16)

        def private(model, optimizer):
            release = Release(noise, rate, steps)
            random = SecretRandom(key)
            names = identities(CASES.records)
            return privacy.gradients(model, optimizer, release, names, privacy.clip, random)

    settings = TrainingSettings(optimizer="sgd", lr=0.1, augment="none", batch_size=16)
    result = train(
        model,
        CASES,
        settings,
        FedAvg().local_rule(model, site_start(model)),
        make_loss(CASES, settings, INFO, torch.device("cpu")),
        Turn(0, "site-00", round_number, 3),
        private=private,
    )
    return layer.mean, result.steps, model


def test_the_mean_is_found_in_the_first_round_and_kept():
    mean, steps, _ = mean_after()
    torch.testing.assert_close(mean, features().mean(dim=0))
    assert steps == 3
    assert not mean_after(round_number=2)[0].any()


def test_it_travels_with_the_weights():
    model = shallow()
    layout = Layout.of(model)
    before = layout.flatten(model)
    centring_of(model).mean.fill_(1.0)
    assert (layout.flatten(model) != before).sum() == 16


def test_a_private_mean_takes_the_place_of_one_step():
    mean, steps, model = mean_after(noise=0.0)
    torch.testing.assert_close(mean, features().mean(dim=0))
    assert steps == 0
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), shallow().parameters(), strict=True)
    )
    assert mean_after(noise=0.0, steps=3)[1] == 2


def test_a_case_counts_with_no_more_than_the_bound():
    mean, *_ = mean_after(noise=0.0, bound=0.5)
    torch.testing.assert_close(mean, clipped(features(), 0.5).mean(dim=0))
    assert clipped(features(), 0.5).norm(dim=1).max() <= 0.5 + 1e-6
    assert torch.equal(clipped(features(), 1e3), features())


def test_its_noise_is_that_of_the_multiplier_over_the_bound():
    clean = features().mean(dim=0)
    noise = torch.stack([mean_after(noise=3.0, key=bytes([n] * 32))[0] - clean for n in range(25)])
    assert noise.std() == pytest.approx(3.0 * centring_of(shallow()).bound / 40, rel=0.1)


def test_a_step_that_draws_no_case_still_tells_nothing_but_noise():
    mean, *_ = mean_after(noise=1.0, rate=1e-9)
    assert torch.isfinite(mean).all()
    assert mean.any()
