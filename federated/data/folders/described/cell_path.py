"""The file or folder that a cell of a table names, inside the data set's own folder."""

from errno import ENAMETOOLONG
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from federated.data.folders.dicom.series_path import MARK, split_series

CONTROL = 32


def path_fault(cell: str) -> str:
    """Why a cell cannot name a file of the folder, as a sentence goes on; ``""`` if it can."""
    if any(ord(letter) < CONTROL for letter in cell):
        return "has characters that no file's name has"
    windows = PureWindowsPath(cell)
    if PurePosixPath(cell).is_absolute() or windows.drive or windows.root:
        return "is an absolute path; name it as seen from the table's folder"
    if ".." in (*windows.parts, windows.name.partition(MARK)[0]):
        return "leaves the table's folder; put the file in there, or a link to it"
    return ""


def path_of(folder: Path, cell: str) -> Path | None:
    """The path of a cell that has no fault; ``None`` where there is no such file or folder.

    ``FOLDER#SERIES`` is there where the folder is: which series are in it, reading it tells.

    Backslashes are those of Windows, and letters with accents may be written in either form of
    Unicode, by the table or by the file system.
    """
    texts = (cell, PureWindowsPath(cell).as_posix())
    for text in dict.fromkeys(normalize(form, text) for text in texts for form in ("NFC", "NFD")):
        path = folder / text
        try:
            if path.exists() or split_series(path)[1]:
                return path
        except OSError as error:
            if error.errno != ENAMETOOLONG:
                raise
    return None
