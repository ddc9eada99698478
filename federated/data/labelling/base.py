"""What differs between kinds of labels before anything is learnt, as one value for each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import AnyLabels, DatasetInfo, Labels, Split
from federated.errors import ConsiliumError


@dataclass(frozen=True)
class Labelling:
    """One kind of labels of images.

    ``checked`` gives the labels of so many cases as :class:`federated.data.dataset.Dataset` has
    them, from an array as a file holds it; it raises ValueError with what is wrong and what it
    needs, without the array's name. ``strata`` groups the cases of all splits ``(n,)``, counted
    from 0 without a gap, so that partitions can mix the groups evenly or unevenly.

    ``counts`` gives how many cases have each of ``counted``, whose names are empty where there is
    nothing to tell apart: then it is the number of cases alone. ``columns`` are what the table of a
    site's cases says of their labels, of which some ``(n,)`` are for training. ``told`` says in a
    few words which labels cases have, to a person at the site, and ``of_case`` those of one.
    ``groups`` are the names of what cases are counted by in statistics, and ``groups_of`` gives the
    places among them ``(n,)`` that a case is counted at.
    """

    checked: Callable[[npt.NDArray[Any], int, DatasetInfo], AnyLabels]
    strata: Callable[[Mapping[Split, AnyLabels]], Mapping[Split, Labels]]
    counts: Callable[[AnyLabels, DatasetInfo], list[int]]
    counted: Callable[[DatasetInfo], tuple[str, ...]]
    columns: Callable[[AnyLabels, npt.NDArray[np.bool_]], Mapping[str, npt.NDArray[Any]]]
    told: Callable[[AnyLabels, DatasetInfo], str]
    of_case: Callable[[Any, DatasetInfo], str]
    groups: Callable[[DatasetInfo], tuple[str, ...]]
    groups_of: Callable[[AnyLabels, DatasetInfo], Labels]


def refuse_constant(train: AnyLabels, info: DatasetInfo) -> None:
    """Refuse labels ``(n, …)`` of all training cases of which there is nothing to learn.

    Of one site they may well be all the same; of all sites together not.

    Raises:
        ConsiliumError: there are several, and all are the same.
    """
    if len(train) > 1 and (train == train[:1]).all():
        raise ConsiliumError(
            f"There is nothing to learn of {info.name}: its {len(train)} training cases have all "
            "the same "
            f"{', '.join(info.classes):.200} ({np.array2string(np.atleast_1d(train[0])):.100}). "
            "Check which column or array holds the labels, or add cases that differ."
        )


def some(cases: npt.NDArray[np.bool_]) -> str:
    """How many cases ``(n,)`` something is true of, and the first of them, for a message."""
    found = np.flatnonzero(cases)
    return f"in {len(found)} of {len(cases)} cases, the first number {int(found[0])} counted from 0"
