"""Which subgroups a site may tell of, so that no count below a minimum can be read.

A group that is told splits all that is told of the site's cases, and so does what is left of them
without it: total minus the groups that are told. So groups are hidden, the smallest first, until
what is told, and all that is hidden of an attribute together, leave no set of 1 to ``minimum`` − 1
cases that can be told apart, by this attribute, those before it, and the tables of the evaluation
(:mod:`federated.learning.suppression`). One small group alone is therefore never hidden: with it
goes another one, or all of them. Where one is hidden, so are those without a case: otherwise three
groups of one case each, the only ones of three cases that are hidden, would be read.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from federated.data.subgroups import Places
from federated.learning.suppression import smallest_group

Told = npt.NDArray[np.bool_]
# In place of the groups that are hidden, all of which are one.
HIDDEN = -1


def told_groups(
    places: Mapping[str, Places],
    sizes: Mapping[str, int],
    known: Sequence[npt.NDArray[np.integer]],
    minimum: int,
    patients: npt.NDArray[np.integer] | None = None,
) -> dict[str, Told]:
    """Which groups ``(groups,)`` of each attribute are told; all of them with a minimum of 0.

    Args:
        places: the group of each case ``(n,)``, by attribute, in the order in which they are tried.
        sizes: how many groups each attribute has.
        known: the cells of each case ``(n, any)`` in the tables of the evaluation that are told.
        minimum: the least number of cases that may be told apart.
        patients: whose each case is ``(n,)``, where how many patients there are is told too.
    """
    found: dict[str, Told] = {}
    cells = list(known)
    for attribute, own in places.items():
        told = np.ones(sizes[attribute], np.bool_)
        counts = np.bincount(own, minlength=sizes[attribute])
        order = iter(np.argsort(counts, kind="stable"))
        while minimum and told.any() and not _is_enough(own, told, cells, minimum, patients):
            told[next(order)] = False
        found[attribute] = told
        cells.append(_merged(own, told))
    return found


def _merged(own: Places, told: Told) -> Places:
    """The group of each case, those that are hidden being one."""
    return np.where(told[own], own, HIDDEN)


def _is_enough(
    own: Places,
    told: Told,
    known: Sequence[npt.NDArray[np.integer]],
    minimum: int,
    patients: npt.NDArray[np.integer] | None,
) -> bool:
    merged = _merged(own, told)
    if smallest_group([merged, *known]) < minimum:
        return False
    if patients is None:
        return True
    # How many patients have how many cases in a group follows from its numbers of both.
    return all(
        smallest_group([np.unique(patients[merged == group], return_counts=True)[1]]) >= minimum
        for group in np.unique(merged)
    )
