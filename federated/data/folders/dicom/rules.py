"""What a data set says of how its DICOM is read where the files themselves leave it open."""

from dataclasses import dataclass
from typing import Literal

OnUnevenGrid = Literal["refuse", "resample"]
OnOverlap = Literal["refuse", "first"]


@dataclass(frozen=True)
class DicomRules:
    """The rules for reading DICOM; all that changes values is refused unless a rule allows it.

    ``series`` names one of several series in a folder by its series number, its SeriesInstanceUID,
    or ``@2`` for the second one in the order of the names of files where numbers do not tell them
    apart; with ``#2`` behind it for the second stack of a series that has several.
    ``uneven`` and ``tilted`` say whether slices at uneven distances, and those of a tilted gantry,
    are resampled to a regular grid by linear interpolation. ``structures`` are the names of
    segments or contoured structures and their labels; the case of letters does not matter, and a
    segment may be named by its number. Where it is empty, a segment's label is its number, and a
    single contoured structure has the label 1. With ``overlap="first"`` a voxel of several
    structures belongs to the one that is named first in ``structures``, or has the lowest number.
    """

    series: str | None = None
    uneven: OnUnevenGrid = "refuse"
    tilted: OnUnevenGrid = "refuse"
    overlap: OnOverlap = "refuse"
    structures: tuple[tuple[str, int], ...] = ()


# What changes values is refused.
STRICT = DicomRules()
