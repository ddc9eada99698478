"""Which data sets' intensities may be brought to a standard scale, and the family that has one."""

import re
from collections.abc import Iterator
from dataclasses import replace

from federated.data.folders.families import Family
from federated.data.folders.histogram_standard import TWO_PERCENTILES
from federated.settings.harmonisation import Harmonise, Landmarks

# What measures something in a unit: a standard scale would take the unit away, and with it what a
# number means (water is 0 HU in every hospital).
WITH_UNIT = frozenset(
    {"ct", "cbct", "cta", "hu", "pet", "suv", "suvbw", "adc", "fa", "dose"}
    | {"t1map", "t2map", "t2starmap", "r2star", "qsm"}
)


def harmonised(family: Family, harmonise: Harmonise, landmarks: Landmarks | None) -> Family:
    """The same family with intensities on a standard scale, as settings or a model's header say.

    Raises:
        ValueError: they do not go together with the family; :func:`harmonise_fault` says why.
    """
    if fault := harmonise_fault(family, harmonise, landmarks):
        raise ValueError(fault)
    if harmonise == "none":
        return family
    if harmonise == "percentiles":
        return replace(family, standards=(TWO_PERCENTILES,) * len(family.modalities))
    assert landmarks is not None
    return replace(family, standards=tuple(landmarks[name] for name in family.modalities))


def harmonise_fault(
    family: Family | None, harmonise: Harmonise, landmarks: Landmarks | None
) -> str:
    """Why a data set cannot be harmonised so, with what to do; ``""`` where it can.

    Args:
        family: the data set; ``None`` for one whose images are classified.
        harmonise: the way.
        landmarks: the standard scale of each modality, if it is stated.
    """
    return next(_faults(family, harmonise, landmarks), "")


def _faults(
    family: Family | None, harmonise: Harmonise, landmarks: Landmarks | None
) -> Iterator[str]:
    if landmarks is not None and harmonise != "nyul":
        yield (
            f"data.landmarks states a standard scale, and data.harmonise={harmonise} uses none. "
            "Set data.harmonise=nyul, or leave data.landmarks out."
        )
    if harmonise == "none":
        return
    said = f"data.harmonise={harmonise}"
    if family is None:
        yield (
            f"{said} is for volumes that are segmented. Images that are classified are kept in "
            "eight bits of each one's own range, from which no scale can be made. Leave it out."
        )
        return
    if family.window is not None or (measured := _measured(family)):
        what = "CT in Hounsfield units" if family.window is not None else measured
        yield (
            f"{said} would take its unit from {family.name}, which is {what}: a number means the "
            "same in every hospital, and an abnormal image would be made to look like a normal "
            "one. Leave it out: CT is on one scale already, by the window of its set."
        )
        return
    if family.dims == 2:
        yield (
            f"{said} is for volumes as of MRI, and {family.name} consists of pictures, whose "
            "colours would be changed with their brightness. Leave it out."
        )
        return
    if harmonise == "nyul":
        yield from _faults_of_landmarks(family, landmarks)


def _faults_of_landmarks(family: Family, landmarks: Landmarks | None) -> Iterator[str]:
    if landmarks is None:
        yield (
            "data.harmonise=nyul needs data.landmarks, the standard scale of each modality of "
            f"{family.name} ({', '.join(family.modalities)}), which is learned from all sites: "
            "`consilium statistics` says it, to be written into the experiment. Or set "
            "data.harmonise=percentiles, for which nothing has to be learned."
        )
    elif set(landmarks) != set(family.modalities):
        yield (
            f"data.landmarks states {', '.join(landmarks) or 'nothing'}, and the modalities of "
            f"{family.name} are {', '.join(family.modalities)}. State the landmarks of each."
        )


def _measured(family: Family) -> str:
    """The first modality of a family that measures something in a unit; ``""`` without any."""
    for modality in family.modalities:
        words = re.split(r"[^a-z0-9]+", modality.lower())
        if WITH_UNIT & {*words, "".join(words)}:
            return modality
    return ""
