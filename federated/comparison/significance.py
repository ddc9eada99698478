"""Whether strategies differ by more than chance: paired tests over seeds, corrected for many."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def paired_p(ours: Sequence[float], baseline: Sequence[float]) -> dict[str, float | None]:
    """Two-sided p over seeds of a paired t-test and of Wilcoxon's signed ranks.

    Both are ``None`` for one pair. That of the t-test is ``None`` also where all differences are
    equal, and that of Wilcoxon where all are zero. With n seeds Wilcoxon's p is never below
    2^(1−n).

    Args:
        ours: a score for each seed, ``(seeds,)``.
        baseline: the baseline's scores for the same seeds, ``(seeds,)``.
    """
    differences = np.subtract(ours, baseline)
    several = len(differences) > 1
    t = several and np.ptp(differences) > 0
    return {
        "p": float(stats.ttest_rel(ours, baseline).pvalue) if t else None,
        "p_wilcoxon": float(stats.wilcoxon(differences).pvalue)
        if several and differences.any()
        else None,
    }


def holm(values: Sequence[float | None]) -> list[float | None]:
    """The p of several tests, each corrected for all of them by Holm's step-down procedure.

    Holm 1979, "A simple sequentially rejective multiple test procedure": the smallest of m is taken
    m times, the next m − 1 times, and none is below one before it. A ``None`` stays one, and is no
    test.
    """
    known = sorted((p, place) for place, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for number, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - number) * p))
        corrected[place] = largest
    return corrected


def difference_interval(ours: Sequence[float], baseline: Sequence[float]) -> list[float] | None:
    """The 95 % interval of the mean difference over seeds, by Student's t; ``None`` for one seed.

    Args:
        ours: a score for each seed, ``(seeds,)``.
        baseline: the baseline's scores for the same seeds, ``(seeds,)``.
    """
    differences = np.subtract(ours, baseline)
    count = len(differences)
    if count < 2 or np.isnan(differences).any():
        return None
    half = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return [float(differences.mean() - half), float(differences.mean() + half)]
