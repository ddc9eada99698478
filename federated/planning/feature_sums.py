"""What of derived features is summed over sites: enough for ComBat's linear model, and no more.

ComBat (Johnson, Li and Rabinovic 2007, Biostatistics 8; for images Fortin et al. 2018, NeuroImage
167) regresses each feature on the covariates and on which site a case is from. The covariates'
effects follow from products of what is centred within each site (Frisch, Waugh and Lovell), which
add up over sites: no row of the sum belongs to one site, unlike in d-ComBat (Chen et al. 2022,
Hum. Brain Mapp. 43), where a site sends the rows of its own. It is the linear case of Fed-ComBat
(Silva et al. 2023), whose harmonisation is non-linear in the covariates.

Features and covariates are given in ranges that everyone knows, and are summed as whole multiples
of 2^-40 of these, so that a secure sum is exact.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.planning.bins import Counts, Floats
from federated.settings.description import Features

# The range of a feature in whole steps.
STEPS = 2**40
# A feature that varies by less than this part of its range has too few steps left for its variance.
LEAST_DEVIATION = 1e-3
# The least eigenvalue of the covariates' correlations within sites: below it, one follows from the
# others.
LEAST_EIGENVALUE = 1e-7
# A scale cannot be told of fewer cases.
LEAST_CASES = 2

Range = tuple[float, float]


@dataclass(frozen=True)
class FeatureScheme:
    """Which features are harmonised and which covariates' effects are kept, with their ranges.

    ``features`` and ``covariates`` map names to ``(low, high)``, in the order of the columns.
    """

    features: tuple[tuple[str, Range], ...]
    covariates: tuple[tuple[str, Range], ...] = ()

    @staticmethod
    def of(features: Features) -> "FeatureScheme":
        """What a data set's description says of its features."""
        return FeatureScheme(tuple(features.columns.items()), tuple(features.covariates.items()))

    @property
    def shape(self) -> tuple[int, int]:
        """How many features ``p`` and how many covariates ``q`` there are."""
        return len(self.features), len(self.covariates)

    @property
    def size(self) -> int:
        """How many numbers are summed: cases, sums, squares and products of pairs."""
        p, q = self.shape
        return 1 + p + q + p + p * q + q * (q + 1) // 2

    def most(self, cases: int) -> int:
        """The largest number of a site with so many cases."""
        return cases * STEPS

    def scaled(self, values: npt.ArrayLike, whose: str) -> Floats:
        """Features and then covariates ``(n, p + q)`` with their ranges brought to 0 and 1.

        Raises:
            ConsiliumError: there are other columns, or a value is no number in its range.
        """
        named = (*self.features, *self.covariates)
        given = np.asarray(values, np.float64)
        if given.ndim != 2 or given.shape[1] != len(named):
            raise ConsiliumError(
                f"The features of {whose} have the shape {given.shape}; a row for each case with "
                f"{', '.join(name for name, _ in named):.300} is expected."
            )
        low, high = np.array([ends for _, ends in named]).reshape(-1, 2).T
        # NaN is in no range.
        for row, column in np.argwhere(~((given >= low) & (given <= high)))[:1]:
            name, ends = named[column]
            raise ConsiliumError(
                f"A case of {whose} has {name}={given[row, column]:g}, and the range of {name} is "
                f"{ends[0]:g} to {ends[1]:g}. Mend the cell, or the range in dataset.yaml, which "
                "has to be the same at all sites."
            )
        found: Floats = (given - low) / (high - low)
        return found


@dataclass(frozen=True, eq=False)
class PooledModel:
    """What all sites together say, on the scale where ranges are 0 to 1.

    ``grand_mean`` ``(p,)`` is α̂, the mean of the sites' intercepts by their cases, ``effects``
    ``(q, p)`` β̂ of the covariates, ``variance`` ``(p,)`` σ̂² of the residuals, over ``cases``.
    """

    scheme: FeatureScheme
    cases: int
    grand_mean: Floats
    effects: Floats
    variance: Floats


def feature_sums(scheme: FeatureScheme, values: npt.ArrayLike, site: str) -> Counts:
    """What a site sends, int64 ``(scheme.size,)``, none of them negative.

    Args:
        scheme: what is summed.
        values: features and then covariates of each case ``(n, p + q)``, in their units.
        site: whose they are, for messages.

    Raises:
        ConsiliumError: a value is out of its range, the site has one case, or a feature is the same
            in all of them, so that no scale of the site's own could be told.
    """
    scaled = scheme.scaled(values, site)
    p, q = scheme.shape
    cases = len(scaled)
    refuse_flat(scheme, scaled, site)
    centred = scaled - scaled.mean(axis=0)
    y, x = centred[:, :p], centred[:, p:]
    signed = [(x.T @ y).reshape(-1), (x.T @ x)[np.triu_indices(q)]]
    # By Cauchy and Schwarz at least −n/4, of values that are n times within 0 and 1.
    parts = [scaled.sum(axis=0), (y**2).sum(axis=0), *(each + cases / 4 for each in signed)]
    steps = np.rint(np.concatenate(parts) * STEPS).astype(np.int64)
    return np.concatenate([[cases], np.clip(steps, 0, scheme.most(cases))]).astype(np.int64)


def refuse_flat(scheme: FeatureScheme, scaled: Floats, site: str) -> None:
    """Refuse cases of a site that no scale can be told of.

    Raises:
        ConsiliumError: there are fewer than two, or a feature does not vary.
    """
    if len(scaled) < LEAST_CASES:
        raise ConsiliumError(
            f"{site} has {len(scaled)} cases with features, and no scale of a site can be told of "
            f"fewer than {LEAST_CASES}. Leave the site out of the harmonisation, or join it with "
            "one that uses the same scanner."
        )
    flat = [
        name
        for (name, _), spread in zip(scheme.features, np.ptp(scaled, axis=0), strict=False)
        if not spread > 0
    ]
    if flat:
        raise ConsiliumError(
            f"At {site} all {len(scaled)} cases have the same {', '.join(flat):.200}: a feature "
            "that does not vary at a site has no scale there. Leave it out of `features` in "
            "dataset.yaml, or the site out of the harmonisation."
        )


def pooled_model(scheme: FeatureScheme, sums: Counts) -> PooledModel:
    """The model of all sites together, from the sum of what each has sent.

    Args:
        scheme: what was summed.
        sums: int64 ``(scheme.size,)`` over the sites.

    Raises:
        ConsiliumError: no cases can have these sums; a feature varies too little for its range; or
            a covariate follows from others or from the site, so that its effect cannot be told.
    """
    p, q = scheme.shape
    cases = int(sums[0]) if sums.shape == (scheme.size,) else 0
    _refuse_impossible(scheme, sums, cases)
    ends = np.cumsum([1, p + q, p, q * p])
    means, squares, cross, products = (part / STEPS for part in np.split(sums, ends)[1:])
    cross = cross.reshape(q, p) - cases / 4
    inner = np.zeros((q, q))
    inner[np.triu_indices(q)] = products - cases / 4
    inner = np.triu(inner) + np.triu(inner, 1).T
    _refuse_small(scheme, np.concatenate([squares, np.diag(inner)]) / cases)
    effects = _solved(scheme, inner, cross)
    # What the covariates explain is taken off the sums of squares within sites.
    variance = (squares - (effects * cross).sum(axis=0)) / cases
    explained = [n for (n, _), v in zip(scheme.features, variance, strict=True) if not v > 1e-12]
    if explained:
        raise ConsiliumError(
            f"The features {', '.join(explained):.200} follow from the covariates and the site "
            "without any rest, so that nothing is left to be harmonised. Leave them out of "
            "`features` in dataset.yaml."
        )
    grand_mean = (means[:p] - means[p:] @ effects) / cases
    return PooledModel(scheme, cases, grand_mean, effects, variance)


def _refuse_impossible(scheme: FeatureScheme, sums: Counts, cases: int) -> None:
    if cases >= LEAST_CASES and not ((sums[1:] < 0) | (sums[1:] > scheme.most(cases))).any():
        return
    raise ConsiliumError(
        f"The sum of the sites' features is refused: it is of {cases} cases, and has numbers that "
        f"these cannot have, or another length than {scheme.size}. A site has sent something else "
        "than sums of its features; which one, nobody can tell of a sum. Nothing is made of it."
    )


def _refuse_small(scheme: FeatureScheme, variances: Floats) -> None:
    """Refuse what does not vary within sites, or less than the sums can tell."""
    p, _ = scheme.shape
    for place, (name, ends) in enumerate((*scheme.features, *scheme.covariates)):
        deviation = float(np.sqrt(max(variances[place], 0.0)))
        if deviation >= LEAST_DEVIATION:
            continue
        if place < p:
            raise ConsiliumError(
                f"Within sites, {name} varies by {deviation * (ends[1] - ends[0]):.3g}, less than "
                f"a thousandth of its range {ends[0]:g} to {ends[1]:g}, and its variance would be "
                "lost in rounding. State a narrower range in dataset.yaml at all sites."
            )
        raise ConsiliumError(
            f"The covariate {name} does not vary within any site, or by less than a thousandth of "
            f"its range {ends[0]:g} to {ends[1]:g}: its effect cannot be told from that of the "
            "site. Leave it out, or state a narrower range in dataset.yaml at all sites."
        )


def _solved(scheme: FeatureScheme, inner: Floats, cross: Floats) -> Floats:
    """The covariates' effects ``(q, p)``, which solve the normal equations."""
    if not len(inner):
        return cross
    scale = np.sqrt(np.diag(inner))
    correlations = inner / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(correlations)
    if values[0] < LEAST_EIGENVALUE:
        names = [name for name, _ in scheme.covariates]
        order = np.argsort(-np.abs(vectors[:, 0]))
        involved = [names[place] for place in order if abs(vectors[place, 0]) > 0.1]
        raise ConsiliumError(
            f"The covariates {', '.join(involved):.200} follow from one another within the sites "
            "(they are collinear), so that nobody can tell which of them has an effect. Leave one "
            "of them out of `covariates` in dataset.yaml."
        )
    found: Floats = np.linalg.solve(correlations, cross / scale[:, None]) / scale[:, None]
    return found


def in_units(scheme: FeatureScheme, scaled: Floats) -> Floats:
    """Features ``(n, p)`` with ranges of 0 to 1, in their own units again."""
    low, high = np.array([ends for _, ends in scheme.features]).T
    found: Floats = low + scaled * (high - low)
    return found
