"""Which subgroups a site may tell of, so that no count below a minimum can be read.

A group that is told splits all that is told of the site's cases, and so does what is left of them
without it: total minus the groups that are told. So groups are hidden until what is told, and all
that is hidden of an attribute together, leave no set of 1 to ``minimum`` − 1 cases that can be told
apart, by this attribute, those before it, and the tables of the evaluation
(:mod:`federated.learning.suppression`).

They are hidden from the last one on, in the order of the plan, and never one alone, whatever their
sizes are. Were the smallest hidden first, which ones are hidden would tell of their sizes: of three
groups of which the first is told, of 3 cases, and the others have 4 together, each would have 2,
since of 1 and 3 another one would have been told. In a fixed order it is known of the groups that
are hidden, where they are more than they had to be, that the first of them or the others together
would have been few: 1 or 2 cases at least are possible then, which a minimum of 3 does not tell
apart.
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
        count = sizes[attribute]
        # One hidden group alone is the total minus the others.
        steps = (np.arange(count) < kept for kept in (count, *range(count - 2, 0, -1)))
        nothing = np.zeros(count, np.bool_)
        enough = (told for told in steps if _is_enough(own, told, cells, minimum, patients))
        found[attribute] = next(enough, nothing)
        cells.append(_merged(own, found[attribute]))
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
