"""ε of composed releases, by the accountants of Opacus.

Every mechanism here is a Gaussian one, possibly on a Poisson sample of the records, so a list of
(noise multiplier, sampling rate, steps) says all that an accountant needs.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from math import inf
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError

Accountant = Literal["prv", "rdp"]
# The orders of Opacus, and larger ones for when a step has little noise.
ALPHAS = (
    *(1 + x / 10 for x in range(1, 100)),
    *map(float, range(12, 64)),
    80.0,
    100.0,
    128.0,
    256.0,
    512.0,
    1024.0,
)
# A mechanism whose noise multiplier holds for Rényi divergences alone, which ε is then computed by.
RDP_ONLY = "distributed discrete gaussian"
# Counts of cases with noise, of which the same holds.
NOISED_COUNTS = "discrete gaussian on counts"
# A mechanism that has no ε, alone or composed.
UNACCOUNTED = "laplace at a private percentile"
# Above this ε the exponentials of Opacus' PRV accountant overflow, and it says infinity.
LARGEST_PRV = 300.0
# Noise multipliers that are tried for a target ε.
SMALLEST, LARGEST = 0.05, 1e5
# To which share of it noise is found.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Release:
    """``steps`` of the Gaussian mechanism, each on a Poisson sample of the records.

    ``noise_multiplier`` is the noise's standard deviation over the sensitivity, at least 0.
    ``sampling_rate`` in (0, 1] is the share of records in a step on average; at 1 every step has
    all of them.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int


def epsilon(releases: Iterable[Release], delta: float, accountant: Accountant) -> float:
    """The ε that all of ``releases`` on the same data have together at ``delta``; an upper bound.

    ``prv`` is the numerical composition of Gopi et al. 2021 (arXiv 2106.02848), which is the
    tighter one. ``rdp`` composes Rényi divergences (Mironov 2017), in microseconds, and is taken
    for ``prv`` too where it is above :data:`LARGEST_PRV`. The result is infinite where a release
    has no noise, and 0 without a release.
    """
    merged = _merged(releases)
    if not merged:
        return 0.0
    if any(release.noise_multiplier == 0 for release in merged):
        return inf
    return (_prv if accountant == "prv" else _rdp)(merged, delta)


@lru_cache(maxsize=1024)
def noise_multiplier_for(
    target: float, delta: float, releases: tuple[Release, ...], accountant: Accountant
) -> float:
    """The smallest noise, to a thousandth, with which ``releases`` have a composed ε of ``target``.

    It is never less than :data:`SMALLEST`, and with it ``accountant`` shows no ε above ``target``.
    Their own noise multipliers are relative: each release has that many times what is returned.
    However large the noise, Rényi divergences of the orders :data:`ALPHAS` show no ε below a floor,
    which is 0.0035 at δ = 1e-5; PRV shows smaller ones, down to its own error of 1e-4.

    Args:
        target: ε, > 0.
        delta: δ, in (0, 1).
        releases: at least one.
        accountant: what composes.

    Raises:
        ConsiliumError: no noise is enough.
    """

    # Many rounds are few releases that differ, and each step of the search composes them all.
    merged = _merged(releases)

    def excess(log_noise: float, by: Accountant) -> float:
        noise = float(np.exp(log_noise))
        scaled = [replace(r, noise_multiplier=noise * r.noise_multiplier) for r in merged]
        return epsilon(scaled, delta, by) - target

    low, high = np.log(SMALLEST), np.log(LARGEST)
    if excess(high, "rdp") > 0 and (accountant == "rdp" or excess(high, "prv") > 0):
        raise ConsiliumError(
            f"epsilon={target:g} at delta={delta:g} cannot be reached with any noise in "
            f"{sum(r.steps for r in releases)} steps at sampling rate "
            f"{releases[0].sampling_rate:.3g}. Even for a noise multiplier of {LARGEST:g}, the "
            f"largest that is tried, privacy.accountant={accountant} shows "
            f"{excess(high, accountant) + target:.3g}. Raise privacy.epsilon or "
            "privacy.epsilon_per_round, or train fewer rounds."
        )
    found = max(_search(excess, low, high, accountant), low)
    # The accountants' own rounding is no reason to release with less noise than is asked for.
    while excess(found, accountant) > 0:
        found += TOLERANCE
    return SMALLEST if found == low else float(np.exp(found))


def _search(
    excess: Callable[[float, Accountant], float], low: float, high: float, accountant: Accountant
) -> float:
    """The logarithm of about the smallest noise for which ``excess`` is not above 0.

    It is not far below ``low``, and may be a little too small where an accountant's ε does not fall
    steadily.

    Args:
        excess: ε less what is to be reached, at the logarithm of a noise multiplier.
        low: the logarithm of the least noise that is tried.
        high: that of the largest, with which ``excess`` is at most 0 by ``accountant``.
        accountant: what composes.
    """
    from scipy.optimize import brentq

    if excess(high, "rdp") > 0:
        # Rényi divergences show no ε so small, whatever the noise; PRV does.
        below = high - 1
        while excess(below, accountant) <= 0 and below > low:
            below -= 1
        if below <= low:
            return low
        return float(brentq(excess, below, high, args=(accountant,), xtol=TOLERANCE)) + TOLERANCE
    if excess(low, "rdp") <= 0:
        return low
    found = float(brentq(excess, low, high, args=("rdp",), xtol=TOLERANCE))
    if accountant == "prv":
        # PRV needs less noise than RDP, and is too slow to be searched from the beginning.
        below = found - 0.1
        while excess(below, "prv") <= 0:
            if below <= low:
                return low
            below -= 0.2
        above = found + 0.01
        while excess(above, "prv") > 0:
            above += 0.1
        found = float(brentq(excess, below, above, args=("prv",), xtol=TOLERANCE))
    return found + TOLERANCE


def _merged(releases: Iterable[Release]) -> tuple[Release, ...]:
    """One release for all of the same noise and sampling, because each costs an accountant time."""
    steps: dict[tuple[float, float], int] = {}
    for release in releases:
        key = (release.noise_multiplier, release.sampling_rate)
        steps[key] = steps.get(key, 0) + release.steps
    return tuple(Release(*key, count) for key, count in sorted(steps.items()) if count)


@lru_cache(maxsize=4096)
def _prv(releases: tuple[Release, ...], delta: float) -> float:
    from opacus.accountants import PRVAccountant  # importing it takes a second

    by_rdp = _rdp(releases, delta)
    if by_rdp > LARGEST_PRV:
        return by_rdp
    _opacus()
    accountant = PRVAccountant()
    accountant.history = [(r.noise_multiplier, r.sampling_rate, r.steps) for r in releases]
    # Where ε is tiny, an error of a hundredth would be most of it.
    error = min(0.01, 0.01 * by_rdp)
    with np.errstate(divide="ignore"), _quiet():  # log(1 − q) where q is 1
        return float(accountant.get_epsilon(delta, eps_error=max(error, 1e-4)))


def _rdp(releases: tuple[Release, ...], delta: float) -> float:
    divergences = _where_least(releases, delta)
    with _quiet():
        found, _ = _opacus().get_privacy_spent(orders=ALPHAS, rdp=divergences, delta=delta)
    return float(found)


def _where_least(releases: tuple[Release, ...], delta: float) -> npt.NDArray[np.float64]:
    """The composed divergences of the orders that ε may come from, and infinity at the others.

    A divergence takes long and never falls with its order. So of all orders between two of which
    the lower one's is known, ε is at least that divergence and what δ adds; where this is more than
    some order is known to give, none of them has to be looked at.
    """
    orders = np.asarray(ALPHAS)
    added = np.log1p(-1 / orders) - (np.log(delta) + np.log(orders)) / (orders - 1)
    total = np.full(len(orders), inf)
    # Far more than what rounding, and a series that Opacus ends at exp(−30), make of a divergence.
    slack = 1e-9 * sum(release.steps for release in releases)

    def look(place: int) -> float:
        if total[place] == inf:
            total[place] = sum(
                release.steps
                * _divergence(release.noise_multiplier, release.sampling_rate, ALPHAS[place])
                for release in releases
            )
        return float(total[place] + added[place])

    least = look(0)
    between = [(0, len(orders))]
    while between:
        low, high = between.pop()
        if high - low < 2:
            continue
        bound = total[low] + added[low + 1 : high].min()
        if bound - slack - 1e-9 * abs(bound) > least:
            continue
        middle = (low + high) // 2
        least = min(least, look(middle))
        between += [(low, middle), (middle, high)]
    return total


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Opacus' note that the best order is at an end of the range; the bound holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _divergence(noise_multiplier: float, sampling_rate: float, order: float) -> float:
    """The Rényi divergence of one step, of an order > 1."""
    found = _opacus().compute_rdp(
        q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=order
    )
    return float(found)


@cache
def _opacus() -> Any:
    """Opacus' Rényi divergences, which remembers those of a step that it has worked out.

    Its PRV accountant asks for each of them twice, and whoever searches for noise has asked before.
    """
    from opacus.accountants.analysis import rdp

    if hasattr(rdp, "_compute_rdp"):
        rdp._compute_rdp = lru_cache(maxsize=2**15)(rdp._compute_rdp)
    return rdp
