"""Where a frame of an object lies, and what else is said of that frame alone.

An object of one slice says so in its header; one of many frames (enhanced CT, MR and PET, and
segmentations) says it in functional groups, for each frame or once for all (PS3.3 C.7.6.16).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError

if TYPE_CHECKING:
    from pydicom import Dataset

    from federated.data.folders.dicom.objects import DicomObject

Floats = npt.NDArray[np.float64]
# Direction cosines have six or more digits in good files and three in bad ones.
RIGHT_ANGLE = 5e-3
# As of NIfTI: about eight times the largest CT.
MOST_VOXELS = 2**30
# From DICOM's axes, towards left, posterior and superior, to NIfTI's right, anterior and superior.
TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Place:
    """The plane of a frame in mm, towards right, anterior and superior.

    ``origin`` is the middle of the first pixel, ``across`` the step from a column to the next, and
    ``down`` that from a row to the next.
    """

    origin: Floats
    across: Floats
    down: Floats

    @property
    def sides(self) -> tuple[float, float]:
        """The distance in mm of columns, and that of rows."""
        return float(np.linalg.norm(self.across)), float(np.linalg.norm(self.down))

    @property
    def normal(self) -> Floats:
        """The unit vector across the plane, towards which slices are counted."""
        # DICOM's row x column; in axes with two of them mirrored that is the same vector.
        turned = np.cross(self.across, self.down)
        unit: Floats = turned / np.linalg.norm(turned)
        return unit

    def pixels_of(self, points: Floats) -> Floats:
        """Points ``(n, 3)`` in mm as column, row and distance in mm from the plane ``(n, 3)``."""
        axes = np.stack([self.across, self.down, self.normal], axis=1)
        return np.asarray(np.linalg.solve(axes, (points - self.origin).T).T)


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame: the object and its number there, counted from 0, its size, and its place if any."""

    found: "DicomObject"
    index: int
    rows: int
    columns: int
    place: Place | None

    @property
    def name(self) -> str:
        """What the frame is called in messages."""
        return self.found.name if self.alone else f"frame {self.index + 1} of {self.found.name}"

    @property
    def alone(self) -> bool:
        """Whether the object has no other frame."""
        return frames_in(self.found) == 1

    def get(self, keyword: str) -> Any:
        """An attribute of this frame: its own, else that of all frames, else the header's."""
        for groups in _groups(self.found.header, self.index):
            for element in groups:
                if element.VR == "SQ" and element.value and keyword in element.value[0]:
                    return element.value[0].get(keyword)
        return self.found.header.get(keyword)


def frames_in(found: "DicomObject") -> int:
    """How many frames an object says that it has."""
    return int(found.header.get("NumberOfFrames") or 1)


def frames_of(found: "DicomObject") -> list[Frame]:
    """The frames of an object.

    Raises:
        ConsiliumError: it does not say how large they are, or what it says of their place is no
            place.
    """
    try:
        rows, columns = int(found.header.Rows), int(found.header.Columns)
        many = frames_in(found)
    except Exception:  # missing, or no numbers; what pydicom says of it has values
        raise ConsiliumError(
            f"The file {found.name} does not say how many rows, columns and frames it has. It is "
            "damaged or no image; put a whole copy there, or move it away."
        ) from None
    if rows * columns * many > MOST_VOXELS or min(rows, columns, many) < 1:
        raise ConsiliumError(
            f"The file {found.name} says that it has {many} frames of {columns}x{rows} pixels; "
            f"from 1 to {MOST_VOXELS} pixels in all can be read. It is damaged, or has to be "
            "cropped."
        )
    told = len(found.header.get("PerFrameFunctionalGroupsSequence") or [])
    if told and told != many:
        raise ConsiliumError(
            f"The file {found.name} says that it has {many} frames, and describes {told}. It is "
            "damaged; put a whole copy there."
        )
    return [_frame(found, index, rows, columns) for index in range(many)]


def _frame(found: "DicomObject", index: int, rows: int, columns: int) -> Frame:
    bare = Frame(found, index, rows, columns, None)
    position, cosines = bare.get("ImagePositionPatient"), bare.get("ImageOrientationPatient")
    if not position or not cosines:
        return bare
    spacing = bare.get("PixelSpacing")
    if not spacing:
        raise ConsiliumError(
            f"The image {bare.name} has a place, but no PixelSpacing, so that the size of its "
            "pixels is unknown. Take the series from where it was made, or write the spacing into "
            "it."
        )
    try:
        origin = np.array([float(value) for value in position])
        across, down = np.array([float(value) for value in cosines]).reshape(2, 3)
        between_rows, between_columns = (float(value) for value in spacing)
        scaled = np.stack([origin, across * between_columns, down * between_rows])
    except Exception:  # no numbers, or not so many
        raise _no_place(bare) from None
    square = max(abs(across @ down), abs(across @ across - 1), abs(down @ down - 1)) <= RIGHT_ANGLE
    if not np.isfinite(scaled).all() or not square or min(between_rows, between_columns) <= 0:
        raise _no_place(bare)
    # Their rounding would make pixels shorter.
    scaled[1] /= np.linalg.norm(across)
    scaled[2] /= np.linalg.norm(down)
    return Frame(found, index, rows, columns, Place(*(scaled @ TO_RAS)))


def _no_place(frame: Frame) -> ConsiliumError:
    return ConsiliumError(
        f"What the image {frame.name} says of its place is none: ImagePositionPatient needs three "
        "numbers, ImageOrientationPatient two unit vectors at a right angle, and PixelSpacing two "
        "numbers above 0. It is damaged; take the series from where it was made."
    )


def _groups(header: "Dataset", index: int) -> "list[Dataset]":
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [*([own[index]] if index < len(own) else []), *shared[:1]]
