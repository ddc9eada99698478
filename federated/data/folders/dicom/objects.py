"""The DICOM objects of a file or folder: their headers, without pixels.

A file is known by its content, because DICOM files often have no ending: by the letters DICM after
a preamble of 128 bytes, or without a preamble by its first group. Other files beside them, such as
viewers and texts, are left alone; a file that begins or is named as DICOM and cannot be read is
refused, since a slice would be missing without it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from federated.data.folders.families.file_names import walk
from federated.errors import ConsiliumError, why_unreadable

PREAMBLE = 128
MARK = b"DICM"
# A file without a preamble begins with one of these groups: that of its own description, or the
# first one of a data set, little or big endian.
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
LOWEST_ELEMENT = 0x0040
ENDINGS = (".dcm", ".dicom", ".ima")
# The index of the files on a disc.
DIRECTORY = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, eq=False)
class DicomObject:
    """An object: its header, the file that it is in, and that file's name for messages.

    The name is relative to the folder that was named, so that messages have no more of a site's
    folders than the person who reads them has given.
    """

    header: Dataset
    path: Path
    name: str

    def text(self, keyword: str) -> str:
        """The value of an attribute as text; ``""`` where there is none."""
        value = self.header.get(keyword)
        return "" if value is None else str(value).strip()


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its first bytes, or a folder has such a file in it or below it."""
    if path.is_dir():
        return any(_begins_as_dicom(file) for _, _, files in walk(path) for file in files)
    return path.is_file() and (_begins_as_dicom(path) or _is_named_dicom(path))


def objects_in(path: Path) -> list[DicomObject]:
    """The headers of a file, or of all files in a folder and below it, in the order of names.

    Raises:
        ConsiliumError: the path is missing, or a file that should be DICOM cannot be read.
    """
    if path.is_dir():
        files = [file for _, _, found in walk(path) for file in found]
        pairs = [(file, file.relative_to(path).as_posix()) for file in files]
    else:
        pairs = [(path, path.name)]
    return list(_objects(path, pairs))


def whole_dataset(found: DicomObject) -> Dataset:
    """The object with its pixels.

    Raises:
        ConsiliumError: the file cannot be read any more.
    """
    return _dataset(found.path, found.name, with_pixels=True)


def _objects(path: Path, pairs: list[tuple[Path, str]]) -> Iterator[DicomObject]:
    for file, name in pairs:
        if path.is_dir() and not (_begins_as_dicom(file) or _is_named_dicom(file)):
            continue
        header = _dataset(file, name, with_pixels=False)
        kind = str(header.get("SOPClassUID", ""))
        if kind == DIRECTORY or header.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
            continue
        if not kind or not header.get("SeriesInstanceUID"):
            if path.is_dir() and not (_has_mark(file) or _is_named_dicom(file)):
                continue  # it begins as DICOM by chance
            raise ConsiliumError(
                f"The file {name} has no SOPClassUID or no SeriesInstanceUID, so that nobody can "
                "tell what it is. It is damaged or no DICOM; put a whole copy there, or move it "
                "away."
            )
        yield DicomObject(header, file, name)


def _dataset(path: Path, name: str, *, with_pixels: bool) -> Dataset:
    """Read a file; the message of a failure quotes nothing that pydicom says, which has values."""
    try:
        dataset = dcmread(path, stop_before_pixels=not with_pixels, force=True)
    except OSError as error:
        raise ConsiliumError(
            f"The file {name} cannot be read: {why_unreadable(error)}. Put a whole copy there, or "
            "name another."
        ) from None
    except Exception as error:  # whatever a parser makes of damaged bytes
        raise ConsiliumError(
            f"The file {name} begins as DICOM, but cannot be read ({type(error).__name__}). It is "
            "truncated or damaged; put a whole copy there."
        ) from None
    _state_syntax(dataset)
    return dataset


def _state_syntax(dataset: Dataset) -> None:
    """Give a data set without description the transfer syntax by which it was read."""
    if getattr(dataset, "file_meta", None) is None:
        dataset.file_meta = FileMetaDataset()
    if dataset.file_meta.get("TransferSyntaxUID"):
        return
    implicit, little = dataset.original_encoding
    if implicit:
        syntax = ImplicitVRLittleEndian
    else:
        syntax = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = syntax


def _is_named_dicom(path: Path) -> bool:
    return path.name.lower().endswith(ENDINGS)


def _has_mark(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(PREAMBLE + len(MARK))[PREAMBLE:] == MARK
    except OSError:
        return False


def _begins_as_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(PREAMBLE + len(MARK))
    except OSError:
        return False
    if start[PREAMBLE:] == MARK:
        return True
    big = start[:2] == FIRST_GROUPS[2]
    element = int.from_bytes(start[2:4], "big" if big else "little")
    return start[:2] in FIRST_GROUPS and len(start) >= 4 and element < LOWEST_ELEMENT
