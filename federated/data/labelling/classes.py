"""One class for each image."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import AnyLabels, DatasetInfo, Labels, Split
from federated.data.labelling.base import Labelling


def checked(array: npt.NDArray[Any], cases: int, info: DatasetInfo) -> Labels:
    """Labels int64 ``(n,)`` of integers ``(n, 1)`` or ``(n,)``.

    Raises:
        ValueError: they are something else, or no class of the data set.
    """
    classes = len(info.classes)
    integers = np.issubdtype(array.dtype, np.integer)
    if not integers or array.shape not in ((cases, 1), (cases,)):
        raise ValueError(
            f"has shape {array.shape} and type {array.dtype}; it needs ({cases}, 1) of integers, "
            "one for each image. Replace the file."
        )
    flat = array.reshape(-1).astype(np.int64)
    if flat.min() < 0 or flat.max() >= classes:
        raise ValueError(
            f"holds labels from {flat.min()} to {flat.max()}, but the set has the classes 0 to "
            f"{classes - 1}. Check data.dataset, or replace the file."
        )
    return flat


def _strata(labels: Mapping[Split, AnyLabels]) -> Mapping[Split, Labels]:
    return labels


def counts(labels: AnyLabels, info: DatasetInfo) -> list[int]:
    """The number of cases of each class."""
    found: list[int] = np.bincount(labels, minlength=len(info.classes)).tolist()
    return found


def _columns(labels: AnyLabels, train: npt.NDArray[np.bool_]) -> Mapping[str, npt.NDArray[Any]]:
    """``label``, and ``class_cases``: how many training cases of the same class there are."""
    of_class = np.bincount(labels[train], minlength=int(labels.max(initial=0)) + 1)
    return {"label": labels, "class_cases": of_class[labels]}


def _told(labels: AnyLabels, info: DatasetInfo) -> str:
    found = counts(labels, info)
    return ", ".join(f"{name} {n}" for name, n in zip(info.classes, found, strict=True) if n)


CLASSES = Labelling(
    checked=checked,
    strata=_strata,
    counts=counts,
    counted=lambda info: info.classes,
    columns=_columns,
    told=_told,
    groups=lambda info: info.classes,
    groups_of=lambda label, info: np.atleast_1d(label).astype(np.int64),  # noqa: ARG005
    of_case=lambda label, info: info.classes[int(label)],
)
