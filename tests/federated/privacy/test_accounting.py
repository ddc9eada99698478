"""ε of composed releases, against Google's accountants."""

import json
import math
import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.privacy.accounting import ALPHAS, Release, epsilon, noise_multiplier_for

COMPOSED = [
    [Release(1.0, 0.05, 400)],
    [Release(2.0, 1.0, 20)],
    [Release(4.0, 0.1, 300), Release(3.0, 0.2, 20)],
    [Release(0.7, 0.02, 200), Release(5.0, 1.0, 1)],
]


DELTAS = [1e-4, 1e-6]

# In a process of its own: absl, which it imports, closes the standard error that pytest captures
# as soon as Prefect sets up its logging.
GOOGLES = """
import json, sys
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

cases, deltas, orders = json.load(sys.stdin)
found = []
for releases in cases:
    accountants = {"prv": PLDAccountant(), "rdp": RdpAccountant(orders)}
    for accountant in accountants.values():
        for noise_multiplier, sampling_rate, steps in releases:
            event = PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier))
            accountant.compose(event, steps)
    found.append({n: [a.get_epsilon(d) for d in deltas] for n, a in accountants.items()})
print(json.dumps(found))
"""


def test_both_accountants_agree_with_googles_within_two_percent():
    cases = [[astuple(release) for release in releases] for releases in COMPOSED]
    done = subprocess.run(
        [sys.executable, "-c", GOOGLES],
        input=json.dumps([cases, DELTAS, ALPHAS]),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    assert len(theirs) == len(COMPOSED)
    for releases, found in zip(COMPOSED, theirs, strict=True):
        for accountant in ("prv", "rdp"):
            ours = [epsilon(releases, delta, accountant) for delta in DELTAS]
            assert ours == pytest.approx(found[accountant], rel=0.02)


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
    ("target", "rate", "steps"),
    [(8.0, 0.1, 400), (1.0, 0.05, 100), (6, 1, 1), (290, 1, 60), (1000, 1, 60)],
)
def test_the_noise_found_reaches_the_target_and_hardly_more(accountant, target, rate, steps):
    noise = noise_multiplier_for(target, 1e-4, (Release(1.0, rate, steps),), accountant)
    assert epsilon([Release(noise, rate, steps)], 1e-4, accountant) <= target
    # The accountants part where PRV ends, at 300.
    less = Release(noise * (0.97 if target == 290 else 0.99), rate, steps)
    assert epsilon([less], 1e-4, accountant) > target


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(ConsiliumError, match="cannot be reached with any noise"):
        noise_multiplier_for(1e-9, 1e-12, (Release(1.0, 1.0, 10**6),), "rdp")


def test_the_gaussian_mechanism_alone_is_balle_and_wangs():
    """One full-batch release: the analytic Gaussian mechanism (Balle and Wang 2018, Theorem 8)."""
    from scipy.special import ndtr

    sigma, found = 2.0, epsilon([Release(2.0, 1.0, 1)], 1e-5, "prv")
    delta = ndtr(0.5 / sigma - found * sigma) - np.exp(found) * ndtr(-0.5 / sigma - found * sigma)
    assert delta == pytest.approx(1e-5, rel=0.1)
