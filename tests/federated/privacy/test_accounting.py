"""ε of composed releases, against Google's accountants."""

import json
import math
import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest
from opacus.accountants import RDPAccountant
from opacus.accountants.analysis.rdp import compute_rdp
from scipy.optimize import brentq
from scipy.special import ndtr

from federated.errors import ConsiliumError
from federated.privacy import accounting
from federated.privacy.accounting import (
    ALPHAS,
    LARGEST_PRV,
    SMALLEST,
    Release,
    epsilon,
    noise_multiplier_for,
)

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


# Where the best order is the least, the largest, a fraction, or one of many.
SEARCHED = [
    *COMPOSED,
    [Release(0.06, 0.3, 1)],
    [Release(0.3, 0.01, 10**4), Release(50.0, 0.9, 3)],
    [Release(8.0, 0.002, 10**5)],
    [Release(300.0, 1.0, 7)],
    [Release(1e5, 0.5, 40)],
]


@pytest.mark.parametrize("releases", SEARCHED, ids=str)
def test_the_best_order_is_found_without_looking_at_all(monkeypatch, releases):
    looked = []
    asked = accounting._divergence
    monkeypatch.setattr(accounting, "_divergence", lambda *of: looked.append(of) or asked(*of))
    orders = np.array(ALPHAS)
    total = sum(
        release.steps
        * compute_rdp(
            q=release.sampling_rate,
            noise_multiplier=release.noise_multiplier,
            steps=1,
            orders=ALPHAS,
        )
        for release in releases
    )
    for delta in (1e-2, 1e-5, 1e-12):
        looked.clear()
        # As Opacus has it.
        by_order = total - (np.log(delta) + np.log(orders)) / (orders - 1)
        by_order += np.log((orders - 1) / orders)
        assert epsilon(releases, delta, "rdp") == by_order.min()
        assert len(looked) < len(ALPHAS) * len(releases) / 3


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
    # PRV takes the longer, the more steps there are.
    [(8.0, 0.1, 400), (1.0, 0.05, 100), (6, 1, 1), (290, 1, 4), (1000, 1, 60)],
)
def test_the_noise_found_reaches_the_target_and_hardly_more(accountant, target, rate, steps):
    noise = noise_multiplier_for(target, 1e-4, (Release(1.0, rate, steps),), accountant)
    assert epsilon([Release(noise, rate, steps)], 1e-4, accountant) <= target
    # The accountants part where PRV ends, at 300.
    less = Release(noise * (0.97 if target == 290 else 0.99), rate, steps)
    assert epsilon([less], 1e-4, accountant) > target


@pytest.mark.parametrize("target", [284.0, 290.0, 294.0])
def test_no_noise_that_is_found_is_below_the_smallest(target):
    """RDP finds a little more than that here, and PRV needs less."""
    release = Release(1.0, 1.0, 1)
    assert epsilon([Release(SMALLEST, 1.0, 1)], 1e-5, "rdp") > target
    noise = noise_multiplier_for(target, 1e-5, (release,), "prv")
    assert noise >= SMALLEST
    assert (noise == SMALLEST) == (target > 284.5)
    assert epsilon([Release(noise, 1.0, 1)], 1e-5, "prv") <= target


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("target", [0.5, 2.0, 8.0])
def test_the_noise_found_reaches_the_target_where_an_accountant_does_not_fall_steadily(
    monkeypatch, accountant, target
):
    """As one may that rounds to a grid: ε of a little more noise is a little more."""

    def wavy(releases, delta):
        (release,) = releases
        noise = release.noise_multiplier
        return 4.0 / noise * (1 + 0.05 * math.sin(300 * math.log(noise)))

    for name in ("_prv", "_rdp"):
        monkeypatch.setattr(accounting, name, wavy)
    noise_multiplier_for.cache_clear()
    noise = noise_multiplier_for(target, 1e-5, (Release(1.0, 0.5, 7),), accountant)
    noise_multiplier_for.cache_clear()
    assert wavy([Release(noise, 0.5, 7)], 1e-5) <= target


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("short", [0.002, 0.05])
def test_noise_that_a_search_leaves_too_small_is_made_larger(monkeypatch, accountant, short):
    """However little ε is too large by: here by less than 0.002 and less than 0.05 of it."""
    planned, search = (Release(1.0, 0.5, 9),), accounting._search
    monkeypatch.setattr(accounting, "_search", lambda *given: search(*given) - short)
    noise_multiplier_for.cache_clear()
    noise = noise_multiplier_for(0.75, 1e-5, planned, accountant)
    noise_multiplier_for.cache_clear()
    assert 0.74 < epsilon([Release(noise, 0.5, 9)], 1e-5, accountant) <= 0.75


def test_a_target_that_no_noise_reaches_is_refused():
    with pytest.raises(ConsiliumError, match="cannot be reached with any noise"):
        noise_multiplier_for(1e-9, 1e-12, (Release(1.0, 1.0, 10**6),), "rdp")


@pytest.mark.parametrize(("target", "rate", "steps"), [(1e-3, 1, 1), (1e-3, 0.1, 4), (3e-3, 1, 2)])
def test_prv_reaches_targets_below_what_renyi_divergences_can_show(target, rate, steps):
    planned = (Release(1.0, rate, steps),)
    with pytest.raises(ConsiliumError, match=r"Even for .* 100000, .*accountant=rdp shows 0\.0035"):
        noise_multiplier_for(target, 1e-5, planned, "rdp")
    noise = noise_multiplier_for(target, 1e-5, planned, "prv")
    assert epsilon([Release(noise, rate, steps)], 1e-5, "prv") <= target
    assert epsilon([Release(0.95 * noise, rate, steps)], 1e-5, "prv") > target
    if rate == steps == 1:
        assert gaussian_epsilon(noise, 1e-5) == pytest.approx(target, abs=1.5e-4)


def test_a_target_below_prvs_own_error_is_refused_with_what_it_can_show():
    with pytest.raises(ConsiliumError, match=r"Even for .*accountant=prv shows 9\.\d+e-05"):
        noise_multiplier_for(1e-5, 1e-5, (Release(1.0, 1.0, 1),), "prv")


def gaussian_epsilon(sigma, delta):
    """That of one full-batch release: the analytic Gaussian mechanism (Balle and Wang 2018)."""

    def excess(found):  # their Theorem 8
        half = 0.5 / sigma
        return ndtr(half - found * sigma) - np.exp(found) * ndtr(-half - found * sigma) - delta

    return brentq(excess, 0, 200, xtol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "error"), [(0.2, 0.02), (0.5, 0.02), (2.0, 0.02), (50.0, 0.002), (2000.0, 3e-4)]
)
def test_the_gaussian_mechanism_alone_is_balle_and_wangs(sigma, error):
    found, true = epsilon([Release(sigma, 1.0, 1)], 1e-5, "prv"), gaussian_epsilon(sigma, 1e-5)
    assert true <= found <= true + error


def test_where_prv_ends_epsilon_is_by_rdp():
    for sigma in np.linspace(0.041, 0.055, 15):
        release = [Release(float(sigma), 1.0, 1)]
        by_rdp, found = (epsilon(release, 1e-5, name) for name in ("rdp", "prv"))
        assert math.isfinite(found)
        assert (found == by_rdp) == (by_rdp > LARGEST_PRV == 300.0)


def test_the_orders_are_opacus_own_and_larger_ones_for_little_noise_a_step():
    own = RDPAccountant.DEFAULT_ALPHAS
    assert list(ALPHAS[: len(own)]) == own
    assert list(ALPHAS[len(own) :]) == [80.0, 100.0, 128.0, 256.0, 512.0, 1024.0]
    # With the best of all orders it would be less by a few hundredths.
    for sigma in (5.0, 30.0, 150.0):
        orders = np.linspace(1.01, 5000, 10**6)
        best = orders / (2 * sigma**2) + np.log1p(-1 / orders)
        best -= (math.log(1e-5) + np.log(orders)) / (orders - 1)
        found = epsilon([Release(sigma, 1.0, 1)], 1e-5, "rdp")
        assert best.min() <= found <= 1.05 * best.min()


def test_releases_of_no_steps_cost_nothing():
    assert epsilon([Release(0.0, 0.1, 0)], 1e-5, "prv") == 0.0
    assert epsilon([Release(2.0, 0.1, 0), Release(2.0, 0.1, 5)], 1e-5, "rdp") == epsilon(
        [Release(2.0, 0.1, 5)], 1e-5, "rdp"
    )


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_less_noise_than_the_smallest_is_never_taken(accountant):
    release = (Release(1.0, 1.0, 1),)
    at_smallest = epsilon([Release(SMALLEST, 1.0, 1)], 1e-5, "rdp")
    for beyond in (0.0, 0.5, 1e6):
        assert noise_multiplier_for(at_smallest + beyond, 1e-5, release, accountant) == SMALLEST
    assert (
        SMALLEST < noise_multiplier_for(at_smallest - 0.5, 1e-5, release, "rdp") < 1.01 * SMALLEST
    )


@pytest.mark.parametrize(("sigma", "steps"), [(90_000.0, 1), (110_000.0, 1), (5e4, 10)])
def test_noise_is_looked_for_up_to_a_hundred_thousand(sigma, steps):
    delta = 1e-12
    target = epsilon([Release(sigma, 1.0, steps)], delta, "rdp")
    planned = (Release(1.0, 1.0, steps),)
    if sigma > 1e5:
        with pytest.raises(ConsiliumError, match=f"in {steps} steps at sampling rate 1"):
            noise_multiplier_for(target, delta, planned, "rdp")
    else:
        found = noise_multiplier_for(target, delta, planned, "rdp")
        assert found == pytest.approx(sigma, rel=0.005)


def test_what_cannot_be_reached_is_said_of_the_first_of_several_releases():
    planned = (Release(1.0, 0.25, 10**6), Release(1.0, 1.0, 10**6))
    with pytest.raises(ConsiliumError, match=r"2000000 steps at sampling rate 0\.25\."):
        noise_multiplier_for(1e-9, 1e-12, planned, "rdp")


def test_noise_multipliers_of_several_releases_keep_their_proportion():
    planned = (Release(1.0, 0.1, 100), Release(3.0, 1.0, 5))
    for accountant in ("prv", "rdp"):
        found = noise_multiplier_for(2.0, 1e-5, planned, accountant)
        scaled = [Release(found, 0.1, 100), Release(3.0 * found, 1.0, 5)]
        assert 1.95 < epsilon(scaled, 1e-5, accountant) <= 2.0


def test_prv_finds_its_noise_where_it_needs_much_less_than_rdp():
    target, planned = 0.05, (Release(1.0, 1.0, 1),)
    by_prv, by_rdp = (noise_multiplier_for(target, 1e-2, planned, name) for name in ("prv", "rdp"))
    assert by_prv < 0.8 * by_rdp
    assert 0.99 * target < epsilon([Release(by_prv, 1.0, 1)], 1e-2, "prv") <= target
