"""The attack works on what it should work on, and not on what is protected."""

from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.membership_attack import advantage, shares
from federated.data.cases import LabelledImages
from federated.data.medmnist.files import dataset_info
from federated.learning.classification import make_loss
from federated.privacy import DPSGD
from federated.privacy.noise import SecretRandom
from federated.settings.sections import TrainingSettings
from federated.training.loop import Turn, place, train
from federated.training.rule import LocalRule
from federated.update import Layout
from tests.conftest import tiny_volumes
from tests.federated.conftest import case_names
from tests.networks import build_model

CPU = torch.device("cpu")
ARRAYS = tiny_volumes(cases={"train": 48}, side=16)
IMAGES = ARRAYS["train_images"][:, None]
LABELS = ARRAYS["train_labels"][:, 0].astype(np.int64)
INFO = dataset_info("adrenalmnist3d")
# Four sites of twelve cases, each class as often at each.
SITES = np.split(np.arange(48), 4)


@pytest.fixture(scope="module")
def model():
    return place(build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0), CPU)


def sent_by(model, cases, privacy=None):
    layout = Layout.of(model)
    start = layout.flatten(model)
    private = None
    if privacy:
        release = privacy.plan(len(cases), 6, 4, 20)
        random = SecretRandom(bytes(31) + bytes([cases[0]]))
        private = partial(
            privacy.gradients,
            release=release,
            cases=case_names(len(cases)),
            clip=privacy.clip,
            random=random,
        )
    settings = TrainingSettings(optimizer="sgd", lr=0.01, momentum=0, batch_size=4, augment="none")
    own = LabelledImages(IMAGES[cases], LABELS[cases])
    train(
        model,
        own,
        settings,
        LocalRule(),
        make_loss(own, settings, INFO, CPU),
        Turn(0, "x"),
        private=private,
    )
    update = layout.flatten(model) - start
    layout.load(model, start)
    return update


def success(model, updates):
    """The attack's AUC, meaned over target sites, each with the update that was seen of it."""
    scores = shares(model, updates, IMAGES, LABELS)
    found = [
        advantage(own, np.isin(np.arange(48), cases), LABELS)
        for own, cases in zip(scores, SITES, strict=True)
    ]
    return np.mean(found)


def test_a_plain_update_tells_whose_case_it_was_and_the_sum_does_not(model):
    updates = [sent_by(model, cases) for cases in SITES]
    assert success(model, updates) > 0.95
    total = np.sum(updates, axis=0)
    # Every case is in the sum, so that the four targets share one ranking: chance but for its luck.
    assert abs(success(model, [total] * 4) - 0.5) < 0.08


def test_dp_sgd_brings_the_attack_to_chance(model):
    privacy = DPSGD(epsilon=1, delta=1e-2, mode="hooks")
    updates = [sent_by(model, cases, privacy) for cases in SITES]
    assert abs(success(model, updates) - 0.5) < 0.12


def test_classes_that_only_members_or_only_others_have_count_for_nothing():
    scores, labels = np.array([9.0, 8.0, 0.1, 0.2]), np.array([0, 0, 1, 1])
    member = np.array([True, True, False, True])
    assert advantage(scores, member, labels) == 1.0
    assert advantage(scores, np.array([True, True, False, False]), labels) == 0.5
