"""Slices in the order of their positions, and the affine of the volume that they make.

The order is that of positions along the normal of the slices; names of files and InstanceNumber
say nothing. What a regular volume cannot be made of without a word is refused: two slices at one
position, a missing one, slices of a tilted gantry.
"""

from collections.abc import Sequence
from math import atan2, degrees

import numpy as np

from federated.data.folders.dicom.frames import Floats, Frame, Place
from federated.data.folders.dicom.resampling import Regrid
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.stacks import SAME_POSITION
from federated.errors import ConsiliumError

# By how much of a step a slice may be off its place in a regular volume: rounding in headers.
MOST_UNEVEN = 0.1
# By how much of a pixel slices may be displaced in their plane, from the first to the last.
MOST_DRIFT = 0.5
# A distance of so many others means that slices are missing.
MISSING = 1.5
NAMED = 5


def arranged(
    name: str, frames: Sequence[Frame], rules: DicomRules
) -> tuple[tuple[Frame, ...], Floats, Regrid | None]:
    """Frames in the order of their positions, the affine ``(4, 4)`` to mm, and how they are laid.

    The affine maps column, row and slice; where slices have to be resampled it is that of the
    regular grid.

    Raises:
        ConsiliumError: two frames are at one position; the rules do not let slices at uneven
            distances or of a tilted gantry be resampled; or the thickness of a single slice is not
            known.
    """
    normal = _place(frames[0]).normal
    ordered = tuple(sorted(frames, key=lambda frame: float(_place(frame).origin @ normal)))
    first = _place(ordered[0])
    within = first.pixels_of(np.stack([_place(frame).origin for frame in ordered]))
    heights, shifts = within[:, 2], within[:, :2]
    _refuse_doubled(name, ordered, heights)
    if len(ordered) == 1:
        step = _thickness(name, ordered[0]) * normal
        return ordered, _affine(first, first.origin, step), None
    tilted = bool((np.ptp(shifts, axis=0) > MOST_DRIFT).any())
    uneven = _unevenness(ordered, heights)
    if uneven and rules.uneven == "refuse":
        raise ConsiliumError(
            f"The slices of {name} are not at even distances: {uneven}. Fetch the missing ones, or "
            "have the volume resampled by linear interpolation with uneven=resample (--uneven of "
            "`consilium predict`)."
        )
    if tilted and rules.tilted == "refuse":
        raise ConsiliumError(f"The slices of {name} {_tilt(ordered, first, heights, shifts)}")
    regular = (np.abs(heights - np.linspace(0, heights[-1], len(heights)))) <= MOST_UNEVEN * (
        heights[-1] / (len(heights) - 1)
    )
    if tilted or not regular.all():
        regrid = Regrid(heights, shifts, (ordered[0].columns, ordered[0].rows))
        left, up = regrid.before
        origin = first.origin + left * first.across + up * first.down
        levels = regrid.levels
        return ordered, _affine(first, origin, (levels[1] - levels[0]) * normal), regrid
    step = (_place(ordered[-1]).origin - first.origin) / (len(ordered) - 1)
    return ordered, _affine(first, first.origin, step), None


def _place(frame: Frame) -> Place:
    assert frame.place is not None
    return frame.place


def _affine(first: Place, origin: Floats, step: Floats) -> Floats:
    affine = np.eye(4)
    affine[:3] = np.stack([first.across, first.down, step, origin], axis=1)
    return affine


def _refuse_doubled(name: str, frames: Sequence[Frame], heights: Floats) -> None:
    near = np.flatnonzero(np.diff(heights) < SAME_POSITION)
    if not near.size:
        return
    first, second = frames[near[0]], frames[near[0] + 1]
    same = first.found.text("SOPInstanceUID") == second.found.text("SOPInstanceUID")
    what = (
        "they are copies of one image"
        if same and first.index == second.index
        else "nothing in their headers tells which belong together"
    )
    raise ConsiliumError(
        f"In {name} {near.size} images lie where another one does, for example {first.name} and "
        f"{second.name} at {_at(first)}; {what}. Leave one image at each position."
    )


def _at(frame: Frame) -> str:
    """A position in DICOM's own coordinates, as in ImagePositionPatient."""
    x, y, z = _place(frame).origin * (-1, -1, 1)
    return f"({x:.6g}, {y:.6g}, {z:.6g}) mm"


def _unevenness(frames: Sequence[Frame], heights: Floats) -> str:
    """What is wrong with the distances of slices, in words; ``""`` if they are even."""
    gaps = np.diff(heights)
    step = heights[-1] / len(gaps)
    usual = float(np.median(gaps))
    even = np.linspace(0, heights[-1], len(heights))
    if (np.abs(heights - even) <= MOST_UNEVEN * step).all():
        return _thinned(frames[0], usual)
    wide = np.flatnonzero(gaps > MISSING * usual)
    if wide.size:
        named = [
            f"{gaps[at]:.4g} mm between {frames[at].name} at {_at(frames[at])} and "
            f"{frames[at + 1].name} at {_at(frames[at + 1])}"
            for at in wide[:NAMED]
        ]
        missing = round(float((gaps[wide] / usual - 1).sum()))
        more = f" and at {len(wide) - NAMED} more places" if len(wide) > NAMED else ""
        return (
            f"about {missing} {'is' if missing == 1 else 'are'} missing, with {'; '.join(named)}"
            f"{more}, where others are {usual:.4g} mm apart"
        )
    at = int(np.abs(gaps - usual).argmax())
    return (
        f"they go from {gaps.min():.4g} to {gaps.max():.4g} mm, and that of {frames[at].name} at "
        f"{_at(frames[at])} to the next is {gaps[at]:.4g} mm where the median is {usual:.4g} mm"
    )


def _thinned(frame: Frame, usual: float) -> str:
    """What is wrong where whole slices lie between all that are there; ``""`` if nothing is.

    Some scanners write the empty space between slices where their distance belongs.
    """
    said = _number(frame, "SpacingBetweenSlices")
    thickness = _number(frame, "SliceThickness")
    is_space = said < thickness and abs(said + thickness - usual) <= MOST_UNEVEN * usual
    if said <= 0 or usual <= MISSING * said or is_space:
        return ""
    return (
        f"they are {usual:.4g} mm apart, and their headers say {said:.4g} mm "
        "(SpacingBetweenSlices), so that slices are missing between all of them"
    )


def _number(frame: Frame, keyword: str) -> float:
    try:
        return abs(float(frame.get(keyword) or 0.0))
    except Exception:  # no number; what pydicom says of it has the value
        return 0.0


def _thickness(name: str, frame: Frame) -> float:
    found = _number(frame, "SpacingBetweenSlices") or _number(frame, "SliceThickness")
    if not found:
        raise ConsiliumError(
            f"{name} is a single slice, {frame.name}, that does not say how thick it is "
            "(SliceThickness). Fetch the whole series, or write the thickness into it."
        )
    return found


def _tilt(frames: Sequence[Frame], first: Place, heights: Floats, shifts: Floats) -> str:
    aside = shifts[-1] * np.array(first.sides)
    angle = degrees(atan2(float(np.linalg.norm(aside)), float(heights[-1])))
    told = frames[0].get("GantryDetectorTilt")
    said = " (GantryDetectorTilt says so too)" if told else ""
    columns, rows = np.ptp(shifts, axis=0)
    return (
        f"are displaced against each other, by up to {columns:.3g} columns and {rows:.3g} rows "
        f"from {frames[0].name} to {frames[-1].name}, as of a gantry tilted by {angle:.3g} "
        f"degrees{said}. They make no upright volume. Have them straightened by linear "
        "interpolation with tilted=resample (--tilted of `consilium predict`)."
    )
