"""A number for each image."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import AnyLabels, DatasetInfo, Labels, Split
from federated.data.labelling.base import Labelling, some

# Into how many groups of about as many cases numbers are sorted to be dealt to sites.
QUANTILES = 10


def checked(array: npt.NDArray[Any], cases: int, info: DatasetInfo) -> AnyLabels:
    """Labels float64 ``(n,)`` of numbers ``(n, 1)`` or ``(n,)`` within the range of the target.

    Raises:
        ValueError: they are something else, NaN, infinite or beyond the range; or not whole, where
            the target is.
    """
    target = info.target
    if target is None:
        raise ValueError("holds numbers of which no range is described.")
    if array.dtype.kind not in "uif" or array.shape not in ((cases, 1), (cases,)):
        raise ValueError(
            f"has shape {array.shape} and type {array.dtype}; it needs ({cases}, 1) of numbers, "
            "one for each image. Replace the file."
        )
    numbers = array.reshape(-1).astype(np.float64)
    if (wrong := ~np.isfinite(numbers)).any():
        raise ValueError(
            f"holds {numbers[wrong][0]} {some(wrong)}; each needs a number. Put it there, or leave "
            "these cases out."
        )
    if (wrong := (numbers < target.low) | (numbers > target.high)).any():
        raise ValueError(
            f"holds {numbers[wrong][0]:g} {some(wrong)}; {info.classes[0]} lies in "
            f"{target.low:g}..{target.high:g}. Correct these numbers or the unit that they are in, "
            "or the range that the data set is described with."
        )
    if target.whole and (wrong := numbers != np.rint(numbers)).any():
        raise ValueError(
            f"holds {numbers[wrong][0]:g} {some(wrong)}; {info.classes[0]} is a whole number. "
            "Replace the file."
        )
    return numbers


def strata(labels: Mapping[Split, AnyLabels]) -> Mapping[Split, Labels]:
    """Ten groups of about as many training cases, by their numbers; fewer where many are equal.

    Equal numbers are in one group.
    """
    inner = np.linspace(0, 1, QUANTILES + 1)[1:-1]
    train = labels["train"]
    # Quantiles that are numbers of cases: of a few values each then gets a group of its own.
    edges = np.unique(np.quantile(train, inner, method="lower")) if len(train) else np.zeros(0)
    found = {split: np.searchsorted(edges, own, side="left") for split, own in labels.items()}
    there = np.unique(np.concatenate([*found.values()]))
    return {split: np.searchsorted(there, own).astype(np.int64) for split, own in found.items()}


def columns(labels: AnyLabels, train: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[Any]]:  # noqa: ARG001 - as any kind's
    """What a table says of the labels of cases ``(n,)``: the number itself, as ``label``."""
    return {"label": labels}


def parts_of_range(info: DatasetInfo) -> tuple[str, ...]:
    """Ten parts of the range that is described, which do not depend on anybody's labels."""
    assert info.target is not None
    ends = np.linspace(info.target.low, info.target.high, QUANTILES + 1)
    return tuple(f"{low:g} to {high:g}{_unit(info)}" for low, high in pairwise(ends))


def part_of(label: AnyLabels, info: DatasetInfo) -> Labels:
    """Which part of the range a number is in, ``(1,)``; its upper end is in the last one."""
    assert info.target is not None
    place = np.floor((np.atleast_1d(label) - info.target.low) / info.target.width * QUANTILES)
    found: Labels = np.clip(place, 0, QUANTILES - 1).astype(np.int64)
    return found


def told(labels: AnyLabels, info: DatasetInfo) -> str:
    """The least, the median and the largest number, for a person at the site."""
    if not len(labels):
        return "no case"
    low, middle, high = np.quantile(labels, (0, 0.5, 1)).tolist()
    return f"{info.classes[0]} {low:g} to {high:g}, median {middle:g}{_unit(info)}"


def of_case(label: float, info: DatasetInfo) -> str:
    """The number of a case with its unit."""
    return f"{info.classes[0]} {float(label):g}{_unit(info)}"


def _unit(info: DatasetInfo) -> str:
    return f" {info.target.unit}" if info.target and info.target.unit else ""


NUMBER = Labelling(
    checked=checked,
    strata=strata,
    counts=lambda labels, info: [len(labels)],  # noqa: ARG005
    counted=lambda info: (),  # noqa: ARG005
    columns=columns,
    told=told,
    of_case=of_case,
    groups=parts_of_range,
    groups_of=part_of,
)
