"""Which of the images in a folder are one volume: by series, by plane, and by what was measured.

Images of one SeriesInstanceUID may still be several volumes: three planes of a localiser, two
echoes, phases of a heart. They are one only if they have one size and one orientation; and where
several are at one position, what tells them apart is looked for.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from federated.data.folders.dicom.frames import Frame, frames_of
from federated.data.folders.dicom.objects import DicomObject
from federated.errors import ConsiliumError

# Objects with frames that are no image: their frames are a mask, a dose, or a description.
NO_IMAGES = ("SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC", "RTRECORD")
LOCALISER, DERIVED = "LOCALIZER", "DERIVED"
# Orientations whose cosines, and pixels whose sides, differ by less are the same.
SAME_PLANE = 1e-3
# Images nearer to each other than this, in mm, are at one position.
SAME_POSITION = 0.01
# What tells images at one position apart, the likeliest first.
TELLING = (
    *("StackID", "EchoNumbers", "EchoTime", "EffectiveEchoTime", "TemporalPositionIdentifier"),
    *("TemporalPositionIndex", "DiffusionBValue", "ImageType", "FrameType", "AcquisitionNumber"),
    *("InversionTime", "TriggerTime", "NominalPercentageOfCardiacPhase", "AcquisitionTime"),
    "ContentTime",
)
# They say when a patient was examined, and are not told.
TIMES_OF_DAY = ("AcquisitionTime", "ContentTime")
# How the name of a series begins that has no number of its own: its place among all follows.
BY_PLACE = "@"
# A number of a series.
WHOLE = re.compile(r"-?[0-9]+")
# How many volumes, and how many images, a message names.
NAMED = 8


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames that may be one volume, the name to ask for them by, and what tells them apart."""

    name: str
    series: str
    frames: tuple[Frame, ...]
    told: str = ""

    @property
    def localiser(self) -> bool:
        """Whether it was made to plan others on."""
        return LOCALISER in self._kinds

    @property
    def _kinds(self) -> list[str]:
        kinds = self.frames[0].get("ImageType") or ()
        return [kinds] if isinstance(kinds, str) else [str(kind) for kind in kinds]

    @property
    def described(self) -> str:
        """What it is, for messages; nothing of it names a patient."""
        first = self.frames[0]
        many = f"{len(self.frames)} image{'s' if len(self.frames) > 1 else ''}"
        parts = [first.found.text("Modality") or "no modality", many]
        parts += [f"{first.columns}x{first.rows}", f"first {first.name}"]
        parts += [self.told] * bool(self.told) + ["localiser"] * self.localiser
        parts += ["derived from others"] * (DERIVED in self._kinds)
        return f"{self.name} ({', '.join(parts)})"


def is_image(found: DicomObject) -> bool:
    """Whether an object is an image, as opposed to a mask, a report or a plan."""
    return found.text("Modality") not in NO_IMAGES and "Rows" in found.header


def one_stack(path: str, objects: Sequence[DicomObject], wanted: str | None) -> Stack:
    """The one stack of images among objects, or the one that is ``wanted`` by name.

    Localisers do not count beside others, unless one is asked for.

    Raises:
        ConsiliumError: there is no image, only localisers, or more than one stack; the message
            names them all.
    """
    images = [found for found in objects if is_image(found)]
    if not images:
        others = sorted({found.text("Modality") or "of no modality" for found in objects})
        there = f"the DICOM there is {', '.join(others)}" if others else "no file there is DICOM"
        raise ConsiliumError(
            f"{path} holds no DICOM image; {there}. Name the folder of the image series."
        )
    stacks = stacks_of(images)
    if wanted is not None:
        return _wanted(path, stacks, wanted)
    left = [stack for stack in stacks if not stack.localiser]
    if not left:
        raise ConsiliumError(
            f"{path} holds nothing but images to plan others on (localisers): {_listed(stacks)}. "
            "Name the folder of the series that was planned, or one of these by the number before "
            "the bracket (in cases.csv as FOLDER#NUMBER; --series of `consilium predict`)."
        )
    if len(left) > 1:
        raise ConsiliumError(
            f"{path} holds {len(left)} series or stacks of images, and nothing says which one is "
            f"meant: {_listed(left)}. Name one by the number before the bracket (in cases.csv as "
            "FOLDER#NUMBER; --series of `consilium predict`), or move the others away."
        )
    return left[0]


def _wanted(path: str, stacks: Sequence[Stack], wanted: str) -> Stack:
    found = [s for s in stacks if wanted in (s.name, s.series)] or [
        s for s in stacks if s.name.partition("#")[0] == wanted
    ]
    if len(found) == 1:
        return found[0]
    raise ConsiliumError(
        f"{path} holds {'no' if not found else 'more than one'} series or stack {wanted!r}. There "
        f"{'is' if len(stacks) == 1 else 'are'} {_listed(found or stacks)}. Name one by the number "
        "before the bracket."
    )


def _listed(stacks: Sequence[Stack]) -> str:
    listed = "; ".join(stack.described for stack in stacks[:NAMED])
    return listed + (f"; and {len(stacks) - NAMED} more" if len(stacks) > NAMED else "")


def stacks_of(images: Iterable[DicomObject]) -> list[Stack]:
    """The stacks of some images, by the names that they are asked for."""
    series: dict[str, list[Frame]] = {}
    for found in images:
        series.setdefault(found.text("SeriesInstanceUID"), []).extend(frames_of(found))
    numbers = [frames[0].found.text("SeriesNumber") for frames in series.values()]
    result = []
    for place, (uid, frames) in enumerate(series.items(), start=1):
        number = frames[0].found.text("SeriesNumber")
        # No UID, which leads an archive to its patient, and no words, which may name one.
        known = WHOLE.fullmatch(number) and numbers.count(number) == 1
        label = number if known else f"{BY_PLACE}{place}"
        parts = [part for plane in _by_plane(frames) for part in _by_content(plane)]
        for at, (part, told) in enumerate(parts, start=1):
            name = label if len(parts) == 1 else f"{label}#{at}"
            result.append(Stack(name, uid, tuple(part), told))
    return result


def _by_plane(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames of one size, one orientation and one spacing each."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _same_plane(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return groups


def _same_plane(first: Frame, second: Frame) -> bool:
    if (first.rows, first.columns) != (second.rows, second.columns):
        return False
    if first.place is None or second.place is None:
        # Without a place, the frames of one object belong together, and nothing else does.
        return first.place is second.place and first.found is second.found
    one, other = first.place, second.place
    least = min(*one.sides, *other.sides)
    gap = max(np.abs(one.across - other.across).max(), np.abs(one.down - other.down).max())
    return bool(gap <= SAME_PLANE * least)


def _by_content(frames: Sequence[Frame]) -> list[tuple[list[Frame], str]]:
    """Frames of one plane, divided by what tells those at one position apart, if anything does."""
    if not _doubled(frames):
        return [(list(frames), "")]
    for keyword in TELLING:
        parts = _divided(frames, keyword)
        if len(parts) > 1 and not any(_doubled(part) for part in parts.values()):
            of_day = keyword in TIMES_OF_DAY
            return [
                (part, keyword if of_day else f"{keyword} {value}") for value, part in parts.items()
            ]
    return [(list(frames), "")]


def _divided(frames: Iterable[Frame], keyword: str) -> dict[str, list[Frame]]:
    parts: dict[str, list[Frame]] = {}
    for frame in frames:
        parts.setdefault(str(frame.get(keyword)), []).append(frame)
    return parts


def _doubled(frames: Sequence[Frame]) -> bool:
    """Whether two frames are at one position."""
    places = [frame.place for frame in frames if frame.place is not None]
    if len(places) < 2:
        return False
    normal = places[0].normal
    heights = np.sort([float(place.origin @ normal) for place in places])
    return bool(np.diff(heights).min() < SAME_POSITION)
