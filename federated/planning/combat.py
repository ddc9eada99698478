"""ComBat at a site: its own location and scale are taken from its features, with empirical Bayes.

Everything here stays at the site: its means, its variances, and the priors of them, which in ComBat
are those of one site over its features (Johnson, Li and Rabinovic 2007, section 3.2). Of the others
it needs the :class:`~federated.planning.feature_sums.PooledModel` alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.planning.bins import Floats
from federated.planning.feature_sums import PooledModel, in_units, refuse_flat

# When an estimate changes by less in a step it has been found; it takes some dozens of steps.
CONVERGED = 1e-12
MOST_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class SiteEffect:
    """How a site differs in each feature ``(p,)``, in standard deviations of all: γ* and δ*²."""

    location: Floats
    variance: Floats


def learned_effect(model: PooledModel, values: npt.ArrayLike, site: str) -> SiteEffect:
    """How a site differs, from its training cases.

    Args:
        model: of all sites together.
        values: features and then covariates of each case ``(n, p + q)``, in their units.
        site: whose they are, for messages.

    Raises:
        ConsiliumError: a value is out of its range, the site has one case, or a feature does not
            vary there, with the covariates' effects or without.
    """
    scaled = model.scheme.scaled(values, site)
    refuse_flat(model.scheme, scaled, site)
    return site_effect(_standardised(model, scaled)[0], site)


def without_site(
    model: PooledModel, effect: SiteEffect, values: npt.ArrayLike, site: str
) -> Floats:
    """Features ``(n, p)`` without the site's location and scale, in their units.

    Y* = σ̂ (Z − γ*) / δ* + α̂ + Xβ̂, with Z = (Y − α̂ − Xβ̂) / σ̂ (Johnson et al. 2007, step 3). What
    the covariates explain is kept.

    Args:
        model: of all sites together.
        effect: what the site adds and multiplies by, from its training cases.
        values: features and then covariates of any of the site's cases ``(n, p + q)``.
        site: whose they are, for messages.

    Raises:
        ConsiliumError: a value is out of its range.
    """
    standard, expected = _standardised(model, model.scheme.scaled(values, site))
    shifted = (standard - effect.location) / np.sqrt(effect.variance)
    return in_units(model.scheme, shifted * np.sqrt(model.variance) + expected)


def _standardised(model: PooledModel, scaled: Floats) -> tuple[Floats, Floats]:
    """Z ``(n, p)``, and what is expected of each case by its covariates ``(n, p)``."""
    p, _ = model.scheme.shape
    expected = model.grand_mean + scaled[:, p:] @ model.effects
    return (scaled[:, :p] - expected) / np.sqrt(model.variance), expected


def site_effect(standard: Floats, site: str) -> SiteEffect:
    """A site's location and variance of each feature, shrunk towards those of its other features.

    γ* and δ*² solve equations (3.1) of Johnson et al. 2007 together, with a normal prior of the
    locations and an inverse gamma prior of the variances, whose parameters are the moments over the
    site's features. Where the moments do not vary, as of one feature, nothing is shrunk.

    Args:
        standard: the site's standardised features Z ``(n, p)``.
        site: whose they are, for messages.

    Raises:
        ConsiliumError: a feature does not vary, or the two do not settle.
    """
    cases = len(standard)
    location = standard.mean(axis=0)
    variance = standard.var(axis=0, ddof=1)
    if not (variance > 1e-20).all():
        raise ConsiliumError(
            f"At {site} a feature does not vary once the covariates' effects are taken off, so "
            "that it has no scale there. Leave it out of `features` in dataset.yaml, or the site "
            "out of the harmonisation."
        )
    centre, spread = location.mean(), _variance(location)
    mean, scatter = variance.mean(), _variance(variance)
    new_location, new_variance = location, variance
    for _ in range(MOST_STEPS):
        before = new_location, new_variance
        if spread > 0:
            weight = cases * spread
            new_location = (weight * location + new_variance * centre) / (weight + new_variance)
        if scatter > 0:
            shape, rate = 2 + mean**2 / scatter, mean + mean**3 / scatter
            squares = (cases - 1) * variance + cases * (location - new_location) ** 2
            new_variance = (rate + squares / 2) / (cases / 2 + shape - 1)
        moved = max(
            np.abs(new_location - before[0]).max(), np.abs(new_variance / before[1] - 1).max()
        )
        if moved < CONVERGED:
            return SiteEffect(new_location, new_variance)
    raise ConsiliumError(
        f"The location and scale of {site} do not settle in {MOST_STEPS} steps. Look at its "
        "features with `consilium data check`: a value may be far from all others."
    )


def _variance(values: Floats) -> float:
    """The variance over features; 0 of a single one."""
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0
