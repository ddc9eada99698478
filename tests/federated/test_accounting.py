"""ε of composed releases, against Google's accountants."""

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from federated.errors import ConsiliumError
from federated.privacy.accounting import ALPHAS, Release, epsilon, noise_multiplier_for

COMPOSED = [
    [Release(1.0, 0.05, 400)],
    [Release(2.0, 1.0, 20)],
    [Release(4.0, 0.1, 300), Release(3.0, 0.2, 20)],
    [Release(0.7, 0.02, 200), Release(5.0, 1.0, 1)],
]


@pytest.mark.parametrize("releases", COMPOSED)
@pytest.mark.parametrize("delta", [1e-4, 1e-6])
def test_both_accountants_agree_with_googles_within_two_percent(releases, delta):
    theirs = {"prv": PLDAccountant(), "rdp": RdpAccountant(list(ALPHAS))}
    for name, accountant in theirs.items():
        for release in releases:
            event = GaussianDpEvent(release.noise_multiplier)
            accountant.compose(PoissonSampledDpEvent(release.sampling_rate, event), release.steps)
        assert epsilon(releases, delta, name) == pytest.approx(
            accountant.get_epsilon(delta), rel=0.02
        )


def test_prv_is_the_tighter_one():
    for releases in COMPOSED:
        assert epsilon(releases, 1e-5, "prv") < epsilon(releases, 1e-5, "rdp")


def test_the_order_and_the_pieces_of_a_composition_do_not_matter():
    whole = [Release(2.0, 0.1, 100), Release(3.0, 0.2, 10)]
    pieces = [Release(3.0, 0.2, 4), *[Release(2.0, 0.1, 20)] * 5, Release(3.0, 0.2, 6)]
    for accountant in ("prv", "rdp"):
        assert epsilon(whole, 1e-5, accountant) == epsilon(pieces, 1e-5, accountant)


def test_nothing_released_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], 1e-5, "prv") == 0.0
    assert epsilon([Release(0.0, 0.1, 1)], 1e-5, "prv") == math.inf


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(
    ("target", "rate", "steps"), [(8.0, 0.1, 400), (1.0, 0.05, 100), (6, 1, 1)]
)
def test_the_noise_found_reaches_the_target_and_hardly_more(accountant, target, rate, steps):
    noise = noise_multiplier_for(target, 1e-4, rate, steps, accountant)
    assert epsilon([Release(noise, rate, steps)], 1e-4, accountant) <= target
    less = Release(noise * 0.99, rate, steps)
    assert epsilon([less], 1e-4, accountant) > target


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(ConsiliumError, match="cannot be reached with any noise"):
        noise_multiplier_for(1e-9, 1e-12, 1.0, 10**6, "rdp")


def test_the_gaussian_mechanism_alone_is_balle_and_wangs():
    """One full-batch release: the analytic Gaussian mechanism (Balle and Wang 2018, Theorem 8)."""
    from scipy.special import ndtr

    sigma, found = 2.0, epsilon([Release(2.0, 1.0, 1)], 1e-5, "prv")
    delta = ndtr(0.5 / sigma - found * sigma) - np.exp(found) * ndtr(-0.5 / sigma - found * sigma)
    assert delta == pytest.approx(1e-5, rel=0.1)
