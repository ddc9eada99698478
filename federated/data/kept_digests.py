"""What a site has worked out of files, kept in its home until they change.

A file counts as unchanged while its path, size, inode and times are: the inode's own time among
them, which no program can set back. What was worked out by other code is not taken.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import PRIVATE, write_text
from federated.provenance import code_digest
from federated.secrets.home import consilium_home, private_folder

# A change so soon after another may have the same times, where a file system counts coarsely.
SETTLED_NS = 2 * 10**9
DIGITS = 64

Stamp = tuple[tuple[str, int, int, int, int], ...]


def stamp_of(paths: Sequence[Path]) -> Stamp:
    """Path, size, inode and the times of change of each file; of one that is missing, its path."""
    stamps = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # reading it says what is wrong
            stamps.append((str(path), -1, 0, 0, 0))
            continue
        times = found.st_mtime_ns, found.st_ctime_ns
        stamps.append((str(path.resolve()), found.st_size, found.st_ino, *times))
    return tuple(stamps)


def kept_digest(paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """The digest that ``compute`` makes of files, of 64 hexadecimal digits.

    It is computed where none is kept for the files as they are now, and kept below ``digests/`` in
    the site's home, for its owner alone, by a name that tells nothing of the files. A home that
    cannot be written to keeps nothing; a file there that is damaged is not believed.

    Raises:
        ConsiliumError: the folder is open to others; or as ``compute`` does.
    """
    stamp = stamp_of(paths)
    name = sha256(f"{code_digest()}{stamp}".encode()).hexdigest()
    path = consilium_home() / "digests" / name[:2] / name
    if path.exists():
        private_folder(path.parent)
        if (kept := _read(path)) is not None:
            return kept
    digest = compute()
    if stamp == stamp_of(paths) and _settled(stamp):
        _keep(path, digest)
    return digest


def _keep(path: Path, digest: str) -> None:
    with suppress(OSError):
        private_folder(path.parent)
        with suppress(ConsiliumError):  # it cannot be written to
            write_text(path, digest, PRIVATE)


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    whole = len(text) == DIGITS and not set(text) - set("0123456789abcdef")
    return text if whole else None


def _settled(stamp: Stamp) -> bool:
    newest = max(time for *_, changed, own in stamp for time in (changed, own))
    return newest < time.time_ns() - SETTLED_NS
