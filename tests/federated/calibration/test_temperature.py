"""Temperature scaling: one of a list of temperatures, from sums of losses alone."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from federated.calibration.temperature import (
    MOST_LOSS,
    TEMPERATURES,
    UNCHANGED,
    least_loss,
    tempered,
)


def logits_of(seed: int, cases: int, classes: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels that are drawn by a softmax, and the logits of it times ``scale``."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(cases, classes)) * 2
    cumulated = softmax(true, axis=1).cumsum(axis=1)
    labels = (rng.random((cases, 1)) > cumulated[:, :-1]).sum(axis=1)
    return labels, true * scale


def loss(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    found = torch.from_numpy(logits / temperature)
    return float(torch.nn.functional.cross_entropy(found, torch.from_numpy(labels)))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_dividing_logits_and_raising_probabilities_to_a_power_are_the_same(temperature):
    _, logits = logits_of(0, 50, 4, 3)
    expected = softmax(logits / temperature, axis=1)
    np.testing.assert_allclose(
        tempered(softmax(logits, axis=1), temperature), expected, rtol=1e-10, atol=1e-300
    )


def test_at_1_nothing_changes_not_even_by_rounding():
    probabilities = softmax(logits_of(1, 20, 3, 5)[1], axis=1)
    assert tempered(probabilities, TEMPERATURES[UNCHANGED]) is probabilities


@pytest.mark.parametrize("temperature", [TEMPERATURES[0], TEMPERATURES[-1]])
def test_a_certain_prediction_stays_a_distribution_with_the_same_likeliest_class(temperature):
    certain = np.array([[1.0, 0.0, 0.0], [0.0, 1e-300, 1.0]])
    found = tempered(certain, temperature)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found.argmax(axis=1).tolist() == [0, 2]


def test_no_case_gives_no_probability():
    assert tempered(np.zeros((0, 3)), 2.0).shape == (0, 3)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 5])
def test_the_fitted_temperature_is_the_nearest_to_the_exact_one(scale, classes):
    labels, logits = logits_of(7, 4000, classes, scale)
    sums = np.array([loss(labels, logits, t) for t in TEMPERATURES]) * len(labels)
    found = TEMPERATURES[least_loss(sums)]
    exact = minimize_scalar(
        lambda power: loss(labels, logits, 2**power), bounds=(-3, 3), method="bounded"
    ).x
    # Half a step, and what the loss is not symmetric about its minimum.
    assert abs(np.log2(found) - exact) < 1 / 14
    assert found == pytest.approx(scale, rel=0.15)


def test_of_equal_losses_the_temperature_that_changes_least_is_taken():
    assert least_loss(np.zeros(len(TEMPERATURES))) == UNCHANGED
    losses = np.full(len(TEMPERATURES), 3.0)
    losses[[2, UNCHANGED + 3]] = 1.0
    assert least_loss(losses) == UNCHANGED + 3


def test_the_largest_loss_is_that_of_float64():
    assert pytest.approx(36.04, abs=0.01) == MOST_LOSS
