"""Several labels, each of which an image has or has not."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import AnyLabels, DatasetInfo, Labels, Split
from federated.data.labelling.base import Labelling, some


def checked(array: npt.NDArray[Any], cases: int, info: DatasetInfo) -> AnyLabels:
    """Labels int64 ``(n, labels)`` of 0 and 1, from integers or truth values.

    Raises:
        ValueError: they are something else.
    """
    wanted = (cases, len(info.classes))
    if array.dtype.kind not in "uib" or array.shape != wanted:
        raise ValueError(
            f"has shape {array.shape} and type {array.dtype}; it needs {wanted} of integers, a row "
            "for each image and a column for each label. Replace the file."
        )
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        raise ValueError(
            f"holds {array[wrong][0]} {some(wrong.any(axis=1))}; a label is 1 where a case has it "
            "and 0 where it has not. Replace the file, or leave out the cases of which that is not "
            "known."
        )
    return array.astype(np.int64)


def strata(labels: Mapping[Split, AnyLabels]) -> Mapping[Split, Labels]:
    """The rarest label that each case has, in the training cases; those without any are a group.

    So a label of a few cases is dealt out by its own shares, and is not left to what else its
    cases have. Groups are in the order of labels, and those that no case is in are left out.
    """
    train = labels["train"].sum(axis=0)
    order = np.argsort(train, kind="stable")
    found = {split: _rarest(own, order) for split, own in labels.items()}
    there = np.unique(np.concatenate([*found.values()]))
    return {split: np.searchsorted(there, own).astype(np.int64) for split, own in found.items()}


def _rarest(labels: AnyLabels, order: npt.NDArray[np.intp]) -> Labels:
    none = labels.shape[1]
    first = labels[:, order].argmax(axis=1)
    found: Labels = np.where(labels.any(axis=1), order[first], none).astype(np.int64)
    return found


def counts(labels: AnyLabels, info: DatasetInfo) -> list[int]:  # noqa: ARG001 - as any kind's
    """The number of cases that have each label; a case may have several, or none."""
    found: list[int] = labels.sum(axis=0).tolist()
    return found


def columns(labels: AnyLabels, train: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[Any]]:
    """What a table says of the labels of cases ``(n, labels)``, of which some are for training.

    ``label`` are the numbers of those that a case has, as ``0 3``. ``unknown_labels`` is how many
    are neither 0 nor 1. ``class_cases`` is in how few training cases one of its labels is; for a
    case without any, how many others have none.
    """
    has = labels == 1
    none = ~has.any(axis=1)
    rarest = np.where(has, has[train].sum(axis=0), np.iinfo(np.int64).max).min(axis=1)
    return {
        "label": np.array([" ".join(map(str, np.flatnonzero(row))) for row in has], object),
        "unknown_labels": ((labels != 0) & (labels != 1)).sum(axis=1),
        "class_cases": np.where(none, none[train].sum(), rarest),
    }


def told(labels: AnyLabels, info: DatasetInfo) -> str:
    """How many cases have each label, and how many have none."""
    found = zip(info.classes, counts(labels, info), strict=True)
    none = int((~labels.any(axis=1)).sum())
    return ", ".join([*(f"{name} in {count}" for name, count in found), f"none in {none}"])


def of_case(label: Labels, info: DatasetInfo) -> str:
    """The names of a case's labels."""
    return ", ".join(info.classes[index] for index in np.flatnonzero(label)) or "none"


MULTILABEL = Labelling(
    checked=checked,
    strata=strata,
    counts=counts,
    counted=lambda info: info.classes,
    columns=columns,
    told=told,
    of_case=of_case,
    groups=lambda info: info.classes,
    groups_of=lambda label, info: np.flatnonzero(label),  # noqa: ARG005
)
