"""DICOM series and what is marked on them, in a folder without a table.

A series is known by the folder that its files lie in, and the segmentation or structure set that is
of it by what it refers to, wherever that lies. Whose a series is stays a pseudonym.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from federated.data.folders.described.doubt import with_example
from federated.data.folders.dicom.frames import frames_of
from federated.data.folders.dicom.objects import DicomObject, objects_in
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.series_path import MARK
from federated.data.folders.dicom.stacks import is_image, stacks_of
from federated.errors import ConsiliumError
from federated.secrets.pseudonyms import pseudonym

MARKINGS = ("SEG", "RTSTRUCT")


@dataclass(frozen=True)
class FoundSeries:
    """A series of images: where it is, and how it is known.

    ``path`` is what a cell of a table names: the folder of a volume's slices, with ``#SERIES``
    behind it where it holds several, or the file of a picture. ``uid`` and ``frame`` are its
    SeriesInstanceUID and its FrameOfReferenceUID, and ``patient`` is the PatientID; none of them is
    for anybody else. ``modality`` is such as ``CT``, and ``flat`` says that it is a picture,
    without a place in the patient.
    """

    path: Path
    uid: str
    frame: str
    patient: str
    modality: str
    flat: bool


@dataclass(frozen=True)
class FoundDicom:
    """The series of a folder, each with the files that mark something on it, and what is unsure."""

    series: list[tuple[FoundSeries, list[Path]]]
    doubts: list[str]


@quiet()
def dicom_in(folder: Path) -> FoundDicom:
    """The DICOM of a folder and below it; no pixels are read.

    Raises:
        ConsiliumError: a file that should be DICOM cannot be read.
    """
    objects = objects_in(folder)
    doubts: list[str] = []
    series = list(_series(folder, [found for found in objects if is_image(found)], doubts))
    marked: dict[Path, list[Path]] = defaultdict(list)
    alone = []
    for found in objects:
        if found.text("Modality") not in MARKINGS:
            continue
        of = _marked_by(found, series)
        if len(of) == 1:
            marked[of[0].path].append(found.path)
        else:
            alone.append(found.name)
    if alone:
        doubts.append(
            with_example(
                f"{len(alone)} segmentations or structure sets are of no series that is here, or "
                "of several, and are left out",
                alone[0],
            )
        )
    return FoundDicom([(each, marked[each.path]) for each in series], doubts)


def _series(
    folder: Path, images: Sequence[DicomObject], doubts: list[str]
) -> Iterator[FoundSeries]:
    """The series that a cell of a table can name, each by itself."""
    folders: dict[Path, list[DicomObject]] = defaultdict(list)
    for found in images:
        folders[found.path.parent].append(found)
    mixed: list[str] = []
    shared: list[str] = []
    for place, inside in sorted(folders.items()):
        flat = [found for found in inside if frames_of(found)[0].place is None]
        for found in flat:
            yield _described(found.path, [found], flat=True)
        placed = [found for found in inside if found not in flat]
        if not placed:
            continue
        below = any(place in other.parents for other in folders)
        if place == folder:
            mixed.append(folder.name)
        elif flat or below:
            mixed.append(place.relative_to(folder).as_posix())
        elif len({found.text("SeriesInstanceUID") for found in placed}) > 1:
            named = place.relative_to(folder).as_posix()
            for stack in stacks_of(placed):
                if stack.localiser:
                    continue
                whole = Path(f"{place}{MARK}{stack.name}")
                # Which would be meant as it is, and not as a series of this folder.
                if MARK in stack.name or whole.exists():
                    mixed.append(f"{named}{MARK}{stack.name}")
                    continue
                shared.append(f"{named}{MARK}{stack.name}")
                own = [frame.found for frame in stack.frames]
                yield _described(whole, own, flat=False)
        else:
            yield _described(place, placed, flat=False)
    if shared:
        doubts.append(
            with_example(
                f"{len(shared)} series share a folder with others, and are named by their number "
                "in it",
                shared[0],
            )
        )
    if mixed:
        doubts.append(
            with_example(
                f"{len(mixed)} folders or series are left out",
                mixed[0],
                ": they hold pictures beside a volume, others in folders below them, or several "
                "stacks of one series, lie at the top, or have the name of another folder. Put "
                "each series into a folder of its own, or name the one that is meant in "
                "cases.csv, as FOLDER#7 for series 7",
            )
        )


def _described(path: Path, found: Sequence[DicomObject], *, flat: bool) -> FoundSeries:
    first = found[0]
    patients = {each.text("PatientID") for each in found} - {""}
    return FoundSeries(
        path,
        first.text("SeriesInstanceUID"),
        first.text("FrameOfReferenceUID"),
        patients.pop() if len(patients) == 1 else "",
        first.text("Modality"),
        flat,
    )


def _marked_by(found: DicomObject, series: Sequence[FoundSeries]) -> list[FoundSeries]:
    """The series that a segmentation or a structure set is of: the one that it names.

    A structure set that was moved or made anonymous may name one that is nowhere. It is of the
    series in whose frame of reference it is drawn.
    """
    named, frames = _references(found)
    by_name = [each for each in series if each.uid in named]
    if by_name or (named and found.text("Modality") == "SEG"):
        return by_name
    return [each for each in series if each.frame in frames]


def _references(found: DicomObject) -> tuple[set[str], set[str]]:
    """The series that an object names, and the frames of reference that it is drawn in."""
    header = found.header
    try:
        frames = {found.text("FrameOfReferenceUID")}
        series = {str(one.SeriesInstanceUID) for one in header.get("ReferencedSeriesSequence", [])}
        for drawn in header.get("StructureSetROISequence", []):
            frames.add(str(drawn.get("ReferencedFrameOfReferenceUID", "")))
        for frame in header.get("ReferencedFrameOfReferenceSequence", []):
            for study in frame.get("RTReferencedStudySequence", []):
                listed = study.get("RTReferencedSeriesSequence", [])
                series |= {str(one.SeriesInstanceUID) for one in listed}
    except Exception:  # damaged; what pydicom says of it has values
        raise ConsiliumError(
            f"The file {found.name} does not say which images it is of. It is damaged; put a whole "
            "copy there, or move it away."
        ) from None
    return series - {""}, frames - {""}


def pseudonyms(
    series: Sequence[FoundSeries], secret: Callable[[], bytes], doubts: list[str]
) -> list[str]:
    """A name for the patient of each series, which only this site can connect with a PatientID.

    Args:
        series: the series.
        secret: gives the site's secret, by which they are named.
        doubts: to which is added what nothing in the files tells.
    """
    known = {each.patient for each in series} - {""}
    if len(known) < 2 < len(series) or not known:
        doubts.append(
            "all series have the same PatientID, or none, as anonymous ones do: each is taken for "
            "another patient. Give those of one patient one name in the column patient, or they "
            "may be in training and in test"
        )
        return [f"patient-{number}" for number in range(1, len(series) + 1)]
    key = secret()
    doubts.append(
        f"patients are told apart by PatientID: {len(known)} of {len(series)} series; their names "
        "in the table are made of it with a secret of this site, and say nothing to others"
    )
    names = []
    for number, each in enumerate(series, start=1):
        names.append(pseudonym(each.patient, key) if each.patient else f"patient-{number}")
    if unknown := sum(not each.patient for each in series):
        doubts.append(f"{unknown} series have no PatientID: each is taken for another patient")
    return names


def numbered(patients: Sequence[str]) -> list[str]:
    """A name for each case: that of its patient, and which of the patient's cases it is."""
    counts: Counter[str] = Counter()
    names = []
    for patient in patients:
        counts[patient] += 1
        names.append(f"{patient}-{counts[patient]}")
    return names
