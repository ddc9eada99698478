"""RTSTRUCT: structures as closed contours in the planes of slices, in mm of the patient.

A contour belongs to the slice at its position; the images that it refers to are not asked, because
sets that were moved or made anonymous refer to images that are nowhere (PS3.3 C.8.8.6).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.frames import TO_RAS, Floats
from federated.data.folders.dicom.objects import DicomObject
from federated.data.folders.dicom.rasterise import inside
from federated.data.folders.dicom.source import SourceSeries
from federated.data.folders.dicom.structure import Structure
from federated.errors import ConsiliumError

if TYPE_CHECKING:
    from pydicom import Dataset

Mask = npt.NDArray[np.bool_]

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
# By how much of the distance of slices a contour may be off a slice.
OFF_PLANE = 0.25
# By how many pixels a contour may reach out of the image: half of one is its border.
OUTSIDE = 1.0
FEWEST_POINTS = 3
# Coordinates in mm have three decimals or more.
PIXEL_DIGITS = 4


def structures_of(path: str, found: DicomObject) -> list[Structure]:
    """The structures of a structure set, by their numbers; one without contours is left out.

    Raises:
        ConsiliumError: it is damaged.
    """
    try:
        contours = {
            int(item.ReferencedROINumber): list(item.get("ContourSequence") or [])
            for item in found.header.get("ROIContourSequence") or []
        }
        described = [
            (int(item.ROINumber), str(item.get("ROIName", "")), item)
            for item in found.header.StructureSetROISequence
        ]
    except Exception:  # missing, or no numbers
        raise ConsiliumError(
            f"The structure set {path} does not describe its structures (StructureSetROISequence, "
            "ROIContourSequence). It is damaged; put a whole copy there."
        ) from None

    def drawing(name: str, item: "Dataset", own: "list[Dataset]") -> Callable[[SourceSeries], Mask]:
        def draw(source: SourceSeries) -> Mask:
            _refuse_other_frame(path, name, item, found, source)
            return _drawn(path, name, own, source)

        return draw

    return [
        Structure(number, name, drawing(name, item, contours[number]))
        for number, name, item in sorted(described, key=lambda entry: entry[0])
        if contours.get(number)
    ]


def _refuse_other_frame(
    path: str, name: str, item: "Dataset", found: DicomObject, source: SourceSeries
) -> None:
    own = str(item.get("ReferencedFrameOfReferenceUID") or found.text("FrameOfReferenceUID"))
    if source.flat or not own or own != source.frame_of_reference:
        raise ConsiliumError(
            f"The structure {name!r} of {path} is in another frame of reference than the image "
            f"{source.name} (FrameOfReferenceUID), so that its positions mean other places. Give "
            "the series that it was drawn on, or a structure set that was registered to this one."
        )


def _drawn(path: str, name: str, contours: "Sequence[Dataset]", source: SourceSeries) -> Mask:
    levels: dict[int, list[Floats]] = defaultdict(list)
    for number, contour in enumerate(contours, start=1):
        said = f"The contour {number} of the structure {name!r} of {path}"
        points = _points(said, contour)
        if len(points) < FEWEST_POINTS:
            continue  # a point or a line has nothing inside
        level, pixels = _on_slice(said, points, source)
        if any(np.array_equal(pixels, other) for other in levels[level]):
            raise ConsiliumError(
                f"{said} is there twice. Two contours in each other are a structure and its hole, "
                "so that nothing would be left inside. Remove one of them."
            )
        levels[level].append(pixels)
    if not levels:
        raise ConsiliumError(
            f"The structure {name!r} of {path} has no closed contour with anything inside. Name "
            "another, or close its contours."
        )
    _refuse_thinned(path, name, sorted(levels))
    result = np.zeros(source.shape, bool)
    for level, found in levels.items():
        result[level] = inside(found, *source.shape[1:])
    return result


def _points(said: str, contour: "Dataset") -> Floats:
    """The points of a contour ``(n, 3)`` in mm, towards right, anterior and superior."""
    kind = str(contour.get("ContourGeometricType", ""))
    if kind not in CLOSED:
        raise ConsiliumError(
            f"{said} is of the type {kind!r}; only closed ones in a plane have an inside "
            f"({CLOSED[0]}). Leave the structure out, or close it where it was drawn."
        )
    try:
        points = np.array([float(value) for value in contour.ContourData]).reshape(-1, 3)
    except Exception:  # missing, no numbers, or no three for each point
        points = np.full((1, 3), np.nan)
    if not np.isfinite(points).all():
        raise ConsiliumError(
            f"{said} has coordinates that are no points: three numbers each are needed. It is "
            "damaged; put a whole copy there."
        )
    return np.asarray(points @ TO_RAS)


def _on_slice(said: str, points: Floats, source: SourceSeries) -> tuple[int, Floats]:
    """The slice of a contour, and its points as column and row there."""
    first = source.frames[0].place
    assert first is not None
    heights = points @ first.normal
    level = int(np.abs(source.heights - float(np.median(heights))).argmin())
    place = source.frames[level].place
    assert place is not None
    pixels = place.pixels_of(points)
    off = float(np.abs(pixels[:, 2]).max())
    if off > OFF_PLANE * source.gap:
        raise ConsiliumError(
            f"{said} is up to {off:.4g} mm off the nearest slice of {source.name}, whose slices "
            f"are {source.gap:.4g} mm apart: it was drawn on other slices, or does not lie in "
            "their plane. Give the series that it was drawn on."
        )
    edges = np.array([source.shape[2], source.shape[1]]) - 1 + OUTSIDE
    beyond = np.maximum(-OUTSIDE - pixels[:, :2], pixels[:, :2] - edges).max()
    if beyond > 0:
        raise ConsiliumError(
            f"{said} reaches out of the image {source.name} by {beyond + OUTSIDE:.3g} pixels, and "
            "that part of it would be lost. Give the series that it was drawn on, uncropped."
        )
    # What was drawn through the middles of pixels goes through them, whatever the rounding in mm.
    return level, np.round(pixels[:, :2], PIXEL_DIGITS)


def _refuse_thinned(path: str, name: str, levels: Sequence[int]) -> None:
    """Refuse a structure that was drawn on every second slice or so, and not between."""
    steps = np.diff(levels)
    if len(steps) and float(np.median(steps)) > 1:
        raise ConsiliumError(
            f"The structure {name!r} of {path} has contours on {len(levels)} of the "
            f"{levels[-1] - levels[0] + 1} slices from its first to its last: those between were "
            "left to be interpolated. Have the program that it was drawn with do so."
        )
