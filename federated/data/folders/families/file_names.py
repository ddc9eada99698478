"""Which files of a folder are data, and what they are called without their endings.

A name loses a known ending and nothing else, so that ``pat0.visit1.nii.gz`` and
``pat0.visit2.nii.gz`` keep names of their own. Upper and lower case do not matter in endings.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from federated.errors import ConsiliumError

# The longer one comes first, since the shorter one ends other names.
VOLUMES = (".nii.gz", ".nii")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp")
ENDINGS = (*VOLUMES, *PICTURES)
# What file browsers and archives leave behind.
NO_DATA = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")
# The texts that come with a data set, as README.md or LICENSE.
TEXTS = ("readme*", "license*", "licence*", "copying*", "notice*", "citation*", "attribution*")
TEXT_ENDINGS = ("", ".txt", ".md", ".rst", ".pdf", ".html", ".cff", ".bib", ".docx")

# The files of each name; where all is well, each name has one file.
Named = Mapping[str, Sequence[Path]]


def split_ending(name: str, endings: Sequence[str] = ENDINGS) -> tuple[str, str]:
    """A file's name without its known ending, and that ending in lower case, or ``""``."""
    for ending in endings:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], ending
    return name, ""


def same_text(name: str) -> str:
    """A name in the one form of Unicode (NFC) in which equal letters have equal codes."""
    return unicodedata.normalize("NFC", name)


def is_data(name: str) -> bool:
    """Whether a file or folder of this name could hold data: it is not hidden, nor a browser's."""
    return not name.startswith(".") and name.lower() not in NO_DATA


def is_text(name: str) -> bool:
    """Whether a file of this name is a text that comes with a data set."""
    stem, dot, ending = name.lower().rpartition(".")
    start, end = (stem, dot + ending) if dot else (name.lower(), "")
    return end in TEXT_ENDINGS and any(fnmatchcase(start, pattern) for pattern in TEXTS)


def entries(folder: Path) -> list[Path]:
    """What could be data in a folder, in the order of names; nothing where there is no folder.

    Raises:
        ConsiliumError: the folder cannot be read.
    """
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if is_data(path.name))
    except OSError as error:
        raise _unreadable(folder, error) from error


def named(
    paths: Iterable[Path], endings: Sequence[str], start: str = "", end: str = ""
) -> dict[str, list[Path]]:
    """The files with these endings, by their name without ending, ``start`` and ``end``.

    Files whose name does not have exactly that start and end are left out.
    """
    result: dict[str, list[Path]] = {}
    for path in paths:
        stem, ending = split_ending(same_text(path.name), endings)
        inner = stem.removeprefix(start).removesuffix(end)
        if ending and inner and stem == f"{start}{inner}{end}" and not path.is_dir():
            result.setdefault(inner, []).append(path)
    return result


def walk(folder: Path) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    """Every folder from this one down, with the folders and files in it that could be data.

    Links are followed, but not back into a folder that leads to them.

    Raises:
        ConsiliumError: a folder cannot be read.
    """
    yield from _walk(folder, frozenset())


def _walk(folder: Path, above: frozenset[str]) -> Iterator[tuple[Path, list[Path], list[Path]]]:
    real = os.path.realpath(folder)
    if real in above:
        return
    found = entries(folder)
    folders = [path for path in found if path.is_dir()]
    yield folder, folders, [path for path in found if not path.is_dir()]
    for below in folders:
        yield from _walk(below, above | {real})


def left_over(folder: Path, known: Iterable[Path], beside: Sequence[str]) -> list[Path]:
    """What lies in a data set's folder and is neither ``known`` nor expected ``beside`` the cases.

    Each file is named; a folder is named only where it is empty.

    Args:
        folder: the data set's folder.
        known: the files of the cases.
        beside: patterns of paths relative to ``folder``, in lower case; texts such as README are
            expected anywhere.

    Raises:
        ConsiliumError: a folder cannot be read.
    """
    files = set(known)
    result: list[Path] = []

    def expected(path: Path) -> bool:
        relative = path.relative_to(folder)
        parts = [Path(*relative.parts[:end]) for end in range(1, len(relative.parts) + 1)]
        return path in files or any(
            fnmatchcase(part.as_posix().lower(), pattern) for part in parts for pattern in beside
        )

    for below, folders, found in walk(folder):
        if below != folder and not folders and not found and not expected(below):
            result.append(below)
        result += [path for path in found if not expected(path) and not is_text(path.name)]
    return result


def refuse_twins(named_files: Iterable[Named]) -> None:
    """Refuse files that are told apart by their endings alone, because one of them would be lost.

    Raises:
        ConsiliumError: there are such files; the message names all of them.
    """
    twins = [paths for files in named_files for paths in files.values() if len(paths) > 1]
    if twins:
        listed = "; ".join(" beside ".join(map(str, paths)) for paths in twins)
        raise ConsiliumError(
            f"Files of one name, but for their endings, are in each other's place: {listed}. Only "
            "one of them can be what the name stands for. Keep the right one and move the others "
            "out of the folder, or give them other names."
        )


def _unreadable(folder: Path, error: OSError) -> ConsiliumError:
    return ConsiliumError(
        f"The folder {folder} cannot be read ({error.strerror}). Make it readable to you, or name "
        "another with data.root or CONSILIUM_DATA."
    )
