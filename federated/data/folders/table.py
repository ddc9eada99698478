"""One row for each case of a folder, with the facts that validation judges."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from federated.data.folders.families import CaseFiles, Family, Listing
from federated.data.folders.labels_left import labels_left, said
from federated.data.folders.prepared_case import known_labels, prepare_volumes
from federated.data.folders.read_case import read_case
from federated.data.folders.volume import NotFiniteError, Volume, affine_gap
from federated.errors import ConsiliumError

# A tenth of a size, a contrast or a window of CT does not count as a difference.
LEAST_SPREAD = 0.1


def folder_tables(family: Family, groups: Mapping[str, Listing]) -> dict[str, pd.DataFrame]:
    """The facts of all cases and unmatched files of each group, such as a site.

    Each file is read once, with one case in memory at a time. The columns are ``case``; ``path`` of
    the image and ``mask_path`` (empty where there is none); ``unreadable``, why a file cannot be
    read; ``shapes`` and ``affines``, ``same`` or what differs between the files of the case;
    ``labels``, those in the mask that the family does not know, or what speaks for labels of
    another set, and which are known; ``foreground``, the number of voxels that are labelled;
    ``unprepared``, why a case whose files are in order cannot be made into what a network takes;
    ``lost``, which labels lose
    voxels by that, and how many are left; ``patient``, whose the case is, empty where a table that
    should say so does not; ``missing``, the number of values that are not numbers; ``size`` and
    ``intensity``, how many robust standard deviations the case is from the others of its group; and
    ``copy_of``, another case of any group with the same image, listed before. Facts that cannot be
    had are NaN.

    ``size`` is judged by the logarithm of the number of voxels. ``intensity`` is judged by the mean
    where intensities have a unit (CT), and otherwise by the logarithm of the contrast, spread over
    mean, because the scale of an MRI or a photograph says nothing.
    """
    tables = {name: _judged(family, listing) for name, listing in groups.items()}
    first: dict[str, str] = {}
    together = frozenset[int]().union(*(v for t in tables.values() for v in t["values"].dropna()))
    for table in tables.values():
        table["copy_of"] = _copies(table, first)
        # A label set is that of a whole folder: what one case may have, all together may not.
        if family.other_labels("", together):
            of_other_set = [family.other_labels("", v) for v in table["values"].dropna()]
            table.loc[table["values"].notna(), "labels"] = [
                said or known
                for said, known in zip(
                    of_other_set, table.loc[table["values"].notna(), "labels"], strict=True
                )
            ]
    return {name: table.drop(columns="values") for name, table in tables.items()}


def _judged(family: Family, listing: Listing) -> pd.DataFrame:
    rows = [_facts(family, case) for case in listing.cases]
    rows += [{"case": path.name, "path": "", "mask_path": str(path)} for path in listing.unmatched]
    columns = (
        *("case", "path", "mask_path", "unreadable", "shapes", "affines", "labels", "foreground"),
        *("unprepared", "lost", "patient", "missing", "voxels", "mean", "std", "digest"),
        "values",
    )
    table = pd.DataFrame(rows, columns=list(columns))
    text = ["path", "mask_path", "unreadable", "labels", "unprepared", "lost"]
    table[text] = table[text].fillna("")
    table[["shapes", "affines"]] = table[["shapes", "affines"]].fillna("same")
    table["size"] = _distance(_log(table["voxels"]), LEAST_SPREAD)
    if family.window:
        width = family.window[1] - family.window[0]
        table["intensity"] = _distance(table["mean"], LEAST_SPREAD * width)
    else:
        contrast = _log(table["std"]) - _log(table["mean"].abs())
        table["intensity"] = _distance(contrast, LEAST_SPREAD)
    return table


def _facts(family: Family, case: CaseFiles) -> dict[str, Any]:
    row: dict[str, Any] = {
        "case": case.name,
        "path": str(case.images[0]),
        "mask_path": str(case.mask or ""),
        "patient": case.patient if case.patient_known else "",
    }
    try:
        images, mask = read_case(case)
    except NotFiniteError as error:
        return row | {"unreadable": str(error), "missing": error.voxels}
    except ConsiliumError as error:
        return row | {"unreadable": str(error)}
    row |= _of_values(images)
    row |= {
        "shapes": _differing_shapes(case, images, mask),
        "affines": _differing_affines([*images, *([mask] if mask else [])]),
    }
    truth = None
    if mask:
        present: frozenset[int] = frozenset(np.unique(mask.values).astype(int).tolist())
        row["values"] = present
        unknown = family.unknown_labels(sorted(present))
        row["labels"] = (
            f"{', '.join(map(str, unknown))}, where {family.values_known()}"
            if unknown
            else family.other_labels(case.name, present)
        )
        row["foreground"] = int((mask.values != 0).sum())
        if not row["labels"]:
            truth = known_labels(family, case, mask)
    # The mask as it was read takes eight times what is made of it; a CT is prepared without it.
    del mask
    return row | _of_prepared(family, case, images, truth, row)


def _of_values(images: Sequence[Volume]) -> dict[str, Any]:
    """What the voxels of all modalities together say; no copy of them is left."""
    parts = [image.values.reshape(-1) for image in images]
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return {
        "missing": 0,  # a volume is refused where it has any
        "voxels": int(np.prod(images[0].spatial)),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "digest": hashlib.sha256(values.data).hexdigest()[:16],
    }


def _of_prepared(
    family: Family,
    case: CaseFiles,
    images: Sequence[Volume],
    truth: npt.NDArray[np.uint8] | None,
    row: Mapping[str, Any],
) -> dict[str, str]:
    """The columns ``unprepared`` and ``lost``, unless another fault keeps the case from it.

    Each case is prepared as it will be for training: neither what that refuses nor what it loses
    can be told from sizes, as for a label that is wide but thinner than the network's voxels.
    """
    differing = row["shapes"] != "same" or row["affines"] != "same"
    if differing or truth is None:
        return {}
    if any(image.values.min() == image.values.max() for image in images):
        return {"unprepared": "an image has one value everywhere"}
    try:
        prepared = prepare_volumes(family, case.name, images, truth)
        return {"lost": said(family, labels_left(prepared))}
    except ConsiliumError as error:
        return {"unprepared": str(error)}


def _differing_shapes(case: CaseFiles, images: Sequence[Volume], mask: Volume | None) -> str:
    """``same``, or each of a case's files with its shape."""
    files = [("image", path, each) for path, each in zip(case.images, images, strict=True)]
    if mask is not None and case.mask is not None:
        files.append(("mask", case.mask, mask))
    if len({volume.spatial for _, _, volume in files}) == 1:
        return "same"
    return ", ".join(
        f"{what} {path.name} {'x'.join(map(str, volume.spatial))}" for what, path, volume in files
    )


def _differing_affines(volumes: Sequence[Volume]) -> str:
    gap = affine_gap(volumes)
    return f"differ by up to {gap:.3g}" if gap else "same"


def _log(values: "pd.Series[Any]") -> "pd.Series[float]":
    return pd.Series(np.log(values.astype(float).clip(lower=1e-6)), index=values.index)


def _distance(values: "pd.Series[float]", least: float) -> "pd.Series[float]":
    """How far each value is from the median, in robust standard deviations.

    1.4826 times the median absolute deviation is the standard deviation of a normal distribution;
    at least ``least`` is taken, so that among equal cases a small difference does not count.
    """
    gaps = (values - values.median()).abs()
    scale = 1.4826 * float(gaps.median()) if gaps.notna().any() else 0.0
    return gaps / max(scale, least)


def _copies(table: pd.DataFrame, first: dict[str, str]) -> list[str]:
    """For each case another one with the same image; ``first`` are those seen, by digest."""
    result = []
    for case, digest in zip(table["case"], table["digest"], strict=True):
        known = isinstance(digest, str)
        result.append(first.get(digest, "") if known else "")
        if known:
            first.setdefault(digest, case)
    return result
