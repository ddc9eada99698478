"""Statistics as whole numbers with known bounds, which every protection of integers adds exactly.

Counts are whole numbers, and none is above the number of a site's cases, which all parties know,
or as many times that as one case can add.
Sums of real numbers are rounded to steps of 2^-20. Where a case can add no more than so much to
one, that bounds it too. ``protection/digits.py`` writes both in digits
that a protection has room for.
"""

from math import ceil, prod

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part
from federated.protection.digits import LARGEST_BOUND, Bounds, WholeNumbers

STEP = 2.0**-20
# Sums of real numbers are below 2^40.
LARGEST_REAL = LARGEST_BOUND - 1


def statistics_bounds(form: Form, cases: int) -> Bounds:
    """The bounds of the statistics of a form, where no site has more than so many ``cases``."""
    return Bounds(tuple((prod(part.shape), _largest(part, cases)) for part in form.values()))


def _largest(part: Part, cases: int) -> int:
    """The largest whole number that so many cases can give."""
    if not part.real:
        return int(part.most or 1) * cases
    if part.most is None:
        return LARGEST_REAL
    # One step more than the product, which a sum that is beyond it by rounding may be rounded to.
    return min(LARGEST_REAL, ceil(part.most * cases / STEP) + 1)


def whole_statistics(statistics: EvaluationStatistics, form: Form) -> WholeNumbers:
    """The statistics as whole numbers ``(statistics_bounds(form, any).length,)``.

    Raises:
        ConsiliumError: a value is negative, or there is no room for it.
        ValueError: something is withheld. Of that, the sum would be of the other sites alone, and
            so perhaps of one.
    """
    if statistics.withheld:
        raise ValueError(f"{sorted(statistics.withheld)} are withheld")
    parts: list[npt.NDArray[np.int64]] = []
    for name, part in form.items():
        scaled = statistics.arrays[name].ravel() / (STEP if part.real else 1)
        # A sum of losses may be below 0 by rounding.
        if not (np.isfinite(scaled) & (scaled > -1) & (scaled <= LARGEST_REAL)).all():
            worst = max(statistics.arrays[name].ravel(), key=abs)
            raise ConsiliumError(
                f"The evaluation statistics have {float(worst):g} in {name!r}, which is negative "
                "or more than fits in a protected sum. Evaluate fewer cases at a site."
            )
        parts.append(np.rint(np.maximum(scaled, 0)).astype(np.int64))
    return np.concatenate(parts)


def summed_statistics(numbers: WholeNumbers, form: Form) -> EvaluationStatistics:
    """The statistics of which the sites' whole numbers have this sum.

    Raises:
        ValueError: it is of another length than that of the form.
    """
    ends = np.cumsum([prod(part.shape) for part in form.values()])
    if numbers.shape != (ends[-1],):
        raise ValueError(f"{numbers.shape} for {ends[-1]} values")
    arrays = {}
    for (name, part), own in zip(form.items(), np.split(numbers, ends[:-1]), strict=True):
        values = own.reshape(part.shape)
        arrays[name] = values * STEP if part.real else values
    return EvaluationStatistics(arrays)


def refuse_inconsistent(total: EvaluationStatistics, form: Form, cases: int) -> None:
    """Refuse summed statistics that cannot be those of so many cases, as the plan has them.

    What is checked is what follows for any predictions: how many cases there are, that each is
    counted as often as a table counts it, and that no count is above it. A site that stays within
    that can change the metrics as it likes: of a sum, nobody can see how much is one site's.

    Raises:
        ConsiliumError: they cannot be; the message says what does not fit.
    """
    wrong = []
    if total.cases != cases:
        wrong.append(f"they are of {total.cases} cases, and the sites in the sum have {cases}")
    for name, part in form.items():
        found = total.arrays[name]
        if part.each_case is not None and found.sum() != part.each_case * cases:
            wrong.append(f"{name!r} counts {int(found.sum())}, not {part.each_case} for each case")
        if not part.real and not part.most and name != CASES and (found > cases).any():
            wrong.append(f"{name!r} has a count above the number of cases")
        if part.most is not None and (found > part.most * cases + cases * STEP).any():
            wrong.append(f"{name!r} is above {part.most:g} for each case")
        if part.occurs and cases and not found.all():
            wrong.append(f"{name!r} counts nothing")
    if wrong:
        raise ConsiliumError(
            f"The evaluation statistics of all sites together are refused: {'; '.join(wrong[:3])}. "
            "A site has sent counts that it cannot have; which one, nobody can tell of a sum. "
            "Resume the run to have them summed again, or find the site by a run without it."
        )
