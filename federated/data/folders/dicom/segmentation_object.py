"""DICOM-SEG: segments as masks of frames, each with a place of its own.

Frames may come in any order, and those without a marked pixel may be missing; where one lies is
said by its plane alone (PS3.3 A.51). Binary, fractional and label-map segmentations are read. Of
a fractional one a pixel is inside if its probability or occupancy is at least one half.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.frames import Frame, frames_of
from federated.data.folders.dicom.objects import DicomObject
from federated.data.folders.dicom.pixels import stored_values
from federated.data.folders.dicom.source import SourceSeries
from federated.data.folders.dicom.structure import Structure
from federated.errors import ConsiliumError

Mask = npt.NDArray[np.bool_]

BINARY, FRACTIONAL, LABELMAP = "BINARY", "FRACTIONAL", "LABELMAP"
HALF = 0.5
# By how much of the distance of slices, and of a pixel, a frame may be off the image's.
OFF_PLANE = 0.1
OFF_PIXEL = 0.1


def segments_of(path: str, found: DicomObject) -> list[Structure]:
    """The segments of a DICOM-SEG, by their numbers.

    Raises:
        ConsiliumError: it is damaged, or of a kind that is not known.
    """
    kind = found.text("SegmentationType")
    if kind not in (BINARY, FRACTIONAL, LABELMAP):
        raise ConsiliumError(
            f"The segmentation {path} is of the type {kind!r}; {BINARY}, {FRACTIONAL} and "
            f"{LABELMAP} are known. Save it as one of these."
        )
    frames = frames_of(found)

    @cache
    def pixels() -> npt.NDArray[np.generic]:
        return stored_values(found)

    def drawing(number: int) -> Callable[[SourceSeries], Mask]:
        def draw(source: SourceSeries) -> Mask:
            _refuse_other_series(path, found, source)
            return _drawn(path, _marked(path, number, frames, pixels()), source)

        return draw

    try:
        described = [
            (int(item.SegmentNumber), str(item.get("SegmentLabel", "")))
            for item in found.header.SegmentSequence
        ]
    except Exception:  # missing, or no numbers
        raise ConsiliumError(
            f"The segmentation {path} does not describe its segments (SegmentSequence). It is "
            "damaged; put a whole copy there."
        ) from None
    return [Structure(number, name, drawing(number)) for number, name in sorted(described)]


def _refuse_other_series(path: str, found: DicomObject, source: SourceSeries) -> None:
    """Refuse a segmentation that was made of other images.

    Raises:
        ConsiliumError: it refers to another series, or to none and lies in another frame of
            reference.
    """
    references = found.header.get("ReferencedSeriesSequence") or []
    series = {str(item.get("SeriesInstanceUID", "")) for item in references} - {""}
    if series and source.series not in series:
        raise ConsiliumError(
            f"The segmentation {path} is of another series than the image {source.name}: the "
            "SeriesInstanceUID that it refers to is not that of the image. Give the series that it "
            "was made of, or the segmentation of this one."
        )
    own = found.text("FrameOfReferenceUID")
    if own != source.frame_of_reference or not (own or series):
        raise ConsiliumError(
            f"The segmentation {path} is in another frame of reference than the image "
            f"{source.name} (FrameOfReferenceUID), so that its positions mean other places. Give "
            "the series that it was made of, or the segmentation of this one."
        )


def _marked(
    path: str, number: int, frames: Sequence[Frame], pixels: npt.NDArray[np.generic]
) -> list[tuple[Frame, Mask]]:
    """The frames on which something of a segment is, with what is inside."""
    found = frames[0].found
    kind = found.text("SegmentationType")
    highest = int(found.header.get("MaximumFractionalValue") or 255)
    result = []
    for frame in frames:
        values = pixels[frame.index]
        if kind == LABELMAP:
            mask = values == number
        elif _segment_of(path, frame) != number:
            continue
        else:
            mask = values != 0 if kind == BINARY else values >= HALF * highest
        if mask.any():
            result.append((frame, np.asarray(mask, bool)))
    return result


def _segment_of(path: str, frame: Frame) -> int:
    number = frame.get("ReferencedSegmentNumber")
    if number is None:
        raise ConsiliumError(
            f"The segmentation {path} does not say of which segment {frame.name} is. It is "
            "damaged; put a whole copy there."
        )
    return int(number)


def _drawn(path: str, marked: Sequence[tuple[Frame, Mask]], source: SourceSeries) -> Mask:
    result = np.zeros(source.shape, bool)
    for frame, mask in marked:
        if source.flat:
            if mask.shape != result.shape[1:]:
                raise _elsewhere(path, frame, "it has another size")
            result[0] |= mask
            continue
        level, columns, rows = _voxels(path, frame, mask, source)
        result[level, rows, columns] = True
    return result


def _voxels(
    path: str, frame: Frame, mask: Mask, source: SourceSeries
) -> tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The slice of a frame, and the columns and rows of what is inside."""
    if frame.place is None:
        raise _elsewhere(path, frame, "it does not say where it lies")
    place = frame.place
    height = float(place.origin @ _normal(source))
    level = int(np.abs(source.heights - height).argmin())
    own = source.frames[level].place
    assert own is not None
    rows, columns = np.nonzero(mask)
    corners = np.array([[columns.min(), rows.min()], [columns.max(), rows.max()]], np.float64)
    at = np.stack([columns, rows], axis=1).astype(np.float64)

    def within(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return own.pixels_of(
            place.origin + points[:, :1] * place.across + points[:, 1:] * place.down
        )

    ends, inside = within(corners), within(at)
    if np.abs(ends[:, 2]).max() > OFF_PLANE * source.gap:
        raise _elsewhere(
            path, frame, f"its plane is {np.abs(ends[:, 2]).max():.3g} mm off the nearest slice"
        )
    whole = np.rint(inside[:, :2]).astype(np.int64)
    steps = [place.across, place.down]
    ratio = [np.linalg.norm(step) / side for step, side in zip(steps, own.sides, strict=True)]
    if np.abs(inside[:, :2] - whole).max() > OFF_PIXEL or len(np.unique(whole, axis=0)) < len(
        whole
    ):
        raise _elsewhere(
            path, frame, f"its pixels are {ratio[0]:.4g} of the image's, or between them"
        )
    lost = ((whole < 0) | (whole >= np.array(source.shape[:0:-1]))).any(axis=1)
    if lost.any():
        raise _elsewhere(path, frame, f"{int(lost.sum())} of its pixels are outside of the image")
    return level, whole[:, 0], whole[:, 1]


def _normal(source: SourceSeries) -> npt.NDArray[np.float64]:
    place = source.frames[0].place
    assert place is not None
    return place.normal


def _elsewhere(path: str, frame: Frame, why: str) -> ConsiliumError:
    return ConsiliumError(
        f"The segmentation {path} does not lie on the slices of its image, with {frame.name}: "
        f"{why}. Resample it to the image's grid, or give the series that it was made of."
    )
