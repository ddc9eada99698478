"""Split conformal prediction sets: sets of classes that hold the true one as often as is asked.

A set has every class whose probability is at least a threshold (Sadinle, Lei and Wasserman 2019,
"Least Ambiguous Set-Valued Classifiers with Bounded Error Levels"). The threshold is the
⌈(n + 1)(1 − α)⌉-th largest probability that the true classes of n validation cases have (Vovk,
Gammerman and Shafer 2005; Lei et al. 2018, Theorem 2.2), rounded down to the edge of a bin.

**Guarantee.** If a new case and the n validation cases are exchangeable, as cases that are drawn
alike are, then the set of the new case holds its true class with a probability of at least 1 − α,
over the draw of all of them. It is so for any model and any number of cases. It is no promise for
one class, for one kind of patient, or given the validation cases that happened to be there: the
share that a threshold then covers varies with them as Beta(k, n + 1 − k), k being the rank.

Bins, and cases that are equal, make sets larger and never too small. Bins are those of the steps of
:mod:`federated.learning.score_histogram`; here they are numbers from 0 up, ascending.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Range = tuple[float, float]
# Of intervals and of what chance alone gives.
LEVEL: Final = 0.95
ROUNDING: Final = 1e-9


def rank(cases: int, alpha: float) -> int:
    """⌈(n + 1)(1 − α)⌉: how many of n validation cases have to be covered; more than n: all sets.

    Args:
        cases: n.
        alpha: the share of cases whose set may miss the true class, in (0, 1).

    Raises:
        ValueError: alpha is so close to 1 that no case would have to be covered.
    """
    # 30 · 0.9 is not to become 28 by a rounding.
    found = ceil((cases + 1) * (1 - alpha) - ROUNDING)
    if found < 1:
        raise ValueError(f"with alpha={alpha!r} none of {cases} cases has to be covered")
    return found


def threshold_bin(of_true: Counts, alpha: float) -> int:
    """The largest bin from which on enough true classes lie; 0, from which on all do, if none.

    Args:
        of_true: how many validation cases have the probability of their true class in each bin
            ``(bins,)``, ascending.
        alpha: the share of cases whose set may miss the true class.
    """
    wanted = rank(int(of_true.sum()), alpha)
    from_here = of_true[::-1].cumsum()[::-1]
    enough = np.flatnonzero(from_here >= wanted)
    return int(enough[-1]) if len(enough) else 0


@dataclass(frozen=True)
class Sets:
    """The prediction sets of test cases by one threshold, as far as counts tell of them.

    Attributes:
        threshold: a class is in a set if its probability is at least this; 0 for every class.
        fitted_on: on how many validation cases.
        alpha: the share of cases whose set may miss the true class.
        cases: how many test cases.
        covered: how many of their sets hold the true class.
        classes: how many classes all these sets have together.
    """

    threshold: float
    fitted_on: int
    alpha: float
    cases: int
    covered: int
    classes: int

    @property
    def coverage(self) -> float | None:
        """The share of sets that hold the true class; ``None`` without a case."""
        return self.covered / self.cases if self.cases else None

    @property
    def size(self) -> float | None:
        """How many classes a set has in the mean; ``None`` without a case."""
        return self.classes / self.cases if self.cases else None

    @cached_property
    def interval(self) -> Range | None:
        """The 95 % interval of Clopper and Pearson 1934 of the share this threshold covers."""
        from scipy.stats import beta

        if not self.cases:
            return None
        tail, missed = (1 - LEVEL) / 2, self.cases - self.covered
        low = float(beta.ppf(tail, self.covered, missed + 1)) if self.covered else 0.0
        high = float(beta.ppf(1 - tail, self.covered + 1, missed)) if missed else 1.0
        return low, high

    @cached_property
    def by_chance(self) -> Range | None:
        """Between which shares the coverage of so many test cases is in 95 % of draws.

        If validation and test cases are exchangeable and no two probabilities are equal, the number
        of covered test cases is beta-binomial with the parameters k and n + 1 − k.
        """
        from scipy.stats import betabinom

        k = rank(self.fitted_on, self.alpha)
        if not self.cases:
            return None
        if k > self.fitted_on:
            return 1.0, 1.0
        tail = (1 - LEVEL) / 2
        found = betabinom(self.cases, k, self.fitted_on + 1 - k).ppf([tail, 1 - tail])
        return float(found[0]) / self.cases, float(found[1]) / self.cases

    def to_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return {
            "threshold": self.threshold,
            "validation_cases": self.fitted_on,
            "cases": self.cases,
            "covered": self.covered,
            "coverage": self.coverage,
            "interval": None if self.interval is None else list(self.interval),
            "by_chance": None if self.by_chance is None else list(self.by_chance),
            "mean_size": self.size,
        }


@dataclass(frozen=True)
class SiteSets:
    """A site's test cases by the threshold of its own validation cases, and by that of all sites.

    Cases of one site are more alike than those of all: the first is what the guarantee is about at
    the site, if its own cases are exchangeable. The second has more cases to rest on, and its
    guarantee is about a case of any site.
    """

    own: Sets
    pooled: Sets

    def to_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        return {"own": self.own.to_json(), "pooled": self.pooled.to_json()}
