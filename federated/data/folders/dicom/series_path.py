"""``FOLDER#SERIES``: one of several series in a folder, where a path is asked for."""

from pathlib import Path

MARK = "#"
# What is no name of a folder beside a file: the folder that it lies in, and the one above.
NO_NAMES = ("", ".", "..")


def split_series(path: Path) -> tuple[Path, str | None]:
    """The folder of a path such as ``exam/1#7``, and which of its series that names.

    A file or folder that is there under the whole name is meant as it is, with ``None``; and so is
    what is no folder and no series of one.

    Args:
        path: where an image is, or ``FOLDER#SERIES``. What stands behind the mark is a series
            number, a SeriesInstanceUID, or another name that :class:`.rules.DicomRules` has for
            one, such as ``7#2`` for the second stack of series 7.
    """
    parts = path.name.split(MARK)
    if len(parts) > 1 and not path.exists():
        for end in range(len(parts) - 1, 0, -1):
            name, series = MARK.join(parts[:end]), MARK.join(parts[end:])
            if series and name not in NO_NAMES and path.with_name(name).is_dir():
                return path.with_name(name), series
    return path, None
