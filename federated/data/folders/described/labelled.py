"""Images with labels, from files of one's own: read, resized, and kept in memory."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.dataset import (
    SPLITS,
    AnyLabels,
    Dataset,
    DatasetInfo,
    Images,
    Origin,
    Split,
)
from federated.data.folders.dataset import found_cases, split_cases
from federated.data.folders.families import CaseFiles, Family
from federated.data.labelling import LABELLINGS
from federated.data.records import array_digest
from federated.errors import ConsiliumError
from federated.settings.description import Description

MOST_BYTES = 2**33
# How many files a message names.
NAMED = 5


def read_labelled(folder: Path, family: Family, description: Description) -> Dataset:
    """The images of a described folder with what is to be learned of each.

    Args:
        folder: where the table and the files are.
        family: how images are prepared.
        description: what the set is.

    Raises:
        ConsiliumError: the folder is not what the description says, its images would take more than
            8 GiB, or files cannot be used; the message names them.
    """
    listing = found_cases(folder, family)
    cases = split_cases(folder, family.name, listing.cases)
    _refuse_too_many(folder, family, len(listing.cases))
    images: dict[Split, Images] = {}
    origins: dict[Split, tuple[Origin, ...]] = {}
    faults: list[str] = []
    for split in SPLITS:
        images[split], origins[split], wrong = _read(family, cases[split])
        faults += wrong
    if faults:
        more = f" And {len(faults) - NAMED} more." if len(faults) > NAMED else ""
        raise ConsiliumError(
            f"{len(faults)} of {len(listing.cases)} cases of {folder} cannot be used. "
            f"{' '.join(faults[:NAMED])}{more}"
        )
    info = labelled_info(family, description, {split: len(cases[split]) for split in SPLITS})
    labels = {split: _labels(folder, info, cases[split]) for split in SPLITS}
    return Dataset(info, images, labels, origins, listing.unmatched)


def labelled_info(
    family: Family, description: Description, cases: Mapping[Split, int]
) -> DatasetInfo:
    """What is known of a described set whose images have labels."""
    return DatasetInfo(
        name=family.name,
        classes=description.classes,
        dims=family.dims,
        channels=family.channels,
        cases=cases,
        licence=family.licence,
        task=description.task,
        shape=family.shape,
        target=description.target,
    )


def _read(
    family: Family, cases: Sequence[CaseFiles]
) -> tuple[Images, tuple[Origin, ...], list[str]]:
    """The images of a split ``(n, channels, *shape)``, where each is from, and what is wrong."""
    from federated.data.folders.described.class_image import class_image
    from federated.data.folders.read_case import read_case

    images = np.zeros((len(cases), family.channels, *family.shape), np.uint8)
    origins: list[Origin] = []
    faults: list[str] = []
    for place, case in enumerate(cases):
        try:
            volumes, _ = read_case(case)
            images[place] = class_image(family, case.name, volumes)
        except ConsiliumError as error:
            faults.append(str(error))
            continue
        # As float32, as the records of segmented cases are.
        record: list[npt.NDArray[Any]] = [volume.values.astype(np.float32) for volume in volumes]
        digest = array_digest([*record, np.asarray(case.target)])
        where = str(case.images[0])
        origins.append(Origin(case.name, case.patient, case.site, where, digest, case.attributes))
    return images, tuple(origins), faults


def _labels(folder: Path, info: DatasetInfo, cases: Sequence[CaseFiles]) -> AnyLabels:
    """What is to be learned of each case, as :class:`federated.data.dataset.Dataset` has it."""
    several = info.task == "multilabel"
    rows = np.array([case.target or () for case in cases])
    try:
        given = rows.reshape(len(cases), len(info.classes) if several else 1)
        whole = info.task != "regression"
        return LABELLINGS[info.task].checked(
            given.astype(np.int64) if whole else given, len(cases), info
        )
    except ValueError as error:
        raise ConsiliumError(f"In {folder}, the table of cases {error}") from error


def _refuse_too_many(folder: Path, family: Family, cases: int) -> None:
    size = cases * family.channels * prod(family.shape)
    if size > MOST_BYTES:
        raise ConsiliumError(
            f"The {cases} images of {folder} with the shape {'x'.join(map(str, family.shape))} "
            f"would take {size / 2**30:.1f} GiB of memory; {MOST_BYTES // 2**30} are possible. "
            "State a smaller shape in its dataset.yaml."
        )
