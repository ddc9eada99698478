"""Writing files so that a reader sees the old file or the whole new one, never a part of it.

A file that is its owner's alone has the mode :data:`PRIVATE`. Folders that are made for such a file
are closed to others as well, whatever the umask is.
"""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable

# In bytes; the largest that is written is a partition of some million cases.
MOST_JSON = 64 * 2**20
# Permissions of a file, and of a folder, that is for its owner alone.
PRIVATE, PRIVATE_FOLDER = 0o600, 0o700
OTHERS = 0o077
# In seconds, between attempts at a lock, which somebody may hold who only looks.
LOOKS = (0.01, 0.02, 0.05)


def make_folders(folder: Path, *, private: bool = False) -> None:
    """Make a folder, and those above it that are missing.

    They are open to their owner alone if ``private`` is set, and also if the folder that they are
    made in is. (``Path.mkdir`` with ``parents`` would leave those above to the umask.)

    Raises:
        OSError: a folder cannot be made.
    """
    if folder.is_dir():
        return
    for place in [*reversed(folder.parents), folder]:
        if place.is_dir():
            continue
        closed = private or not place.parent.stat().st_mode & OTHERS
        # Somebody else may have made it in between; a file in its place is an error.
        place.mkdir(PRIVATE_FOLDER if closed else 0o777, exist_ok=True)


@contextmanager
def atomic_path(path: Path, mode: int = 0o644, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed onto ``path``.

    On any exception the temporary file is removed and ``path`` is left as it was. The file gets the
    permissions ``mode``; until then its owner alone can read it. Folders that are missing are made;
    they are for their owner alone where the file is. A file that nobody misses after a power cut
    need not be ``durable``, and is not synced.

    Raises:
        ConsiliumError: the folder cannot be written to, or ``path`` is a folder itself.
    """
    if path.is_dir():
        raise ConsiliumError(
            f"The file {path} cannot be written: it is a folder. Name a file in it, or another one."
        )
    try:
        make_folders(path.parent, private=not mode & OTHERS)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise cannot_write(path.parent, error) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        if temporary.stat().st_nlink == 1:  # a hard link is somebody else's file too
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if not durable:
        return
    # The rename is durable once the folder is.
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(folder: Path, error: OSError, which: str = "") -> ConsiliumError:
    """The error that tells a person that a folder cannot be written to; the caller raises it.

    Args:
        folder: the folder.
        error: what the operating system said.
        which: what names the folder, such as a variable of the environment.
    """
    said = f" ({which})" if which else ""
    is_file = isinstance(error, FileExistsError | NotADirectoryError)
    why = "it is a file, or lies in one" if is_file else error.strerror or error
    return ConsiliumError(
        f"Cannot write to the folder {folder}{said}: {why}. "
        "Make it writable, free some space, or name another folder."
    )


def require_writable(folder: Path, which: str, *, private: bool = True) -> None:
    """Make a folder if it is not there, and check that files can be written into it.

    A folder that is made is for its owner alone if it is ``private``.

    Raises:
        ConsiliumError: no file can be written there; the message names the folder, and by ``which``
            what it is for.
    """
    try:
        make_folders(folder, private=private)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error, which) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, waiting for whoever holds it; the file is made if it is not there.

    Raises:
        ConsiliumError: the file cannot be made.
    """
    handle = _lock_file(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _lock_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    except OSError as error:
        raise cannot_write(path.parent, error) from error


@contextmanager
def held(path: Path, told: str) -> Iterator[str | None]:
    """Hold the lock of a file where nobody does; it ends with the process.

    It waits no longer than somebody takes who only looks with :func:`is_held`.

    Args:
        path: the file, which is made if it is not there.
        told: what others are told who ask for the lock meanwhile.

    Yields:
        ``None``; or, where somebody else has it, what that one has told.

    Raises:
        ConsiliumError: the file cannot be made.
    """
    handle = _lock_file(path)
    try:
        if not _takes(handle):
            yield os.read(handle, 1000).decode(errors="replace")
            return
        os.ftruncate(handle, 0)
        os.write(handle, told.encode())
        yield None
    finally:
        os.close(handle)


def _takes(handle: int) -> bool:
    for pause in (*LOOKS, None):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
        else:
            return True
    return False


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of a file; to look needs no leave to write, and writes none.

    Raises:
        ConsiliumError: the file cannot be opened.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConsiliumError(
            f"Whether somebody holds {path} cannot be seen: {why_unreadable(error)}. Look as the "
            "user whose file it is."
        ) from error
    try:
        # Shared with others who look.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def writable_folder(folder: Path, which: str) -> Iterator[None]:
    """Have a folder that files can be written into; others may read it.

    Where the block fails, what was made for it is removed again, as long as nothing is in it.

    Raises:
        ConsiliumError: see :func:`require_writable`.
    """
    missing = [place for place in (folder, *folder.parents) if not place.is_dir()]
    require_writable(folder, which, private=False)
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for place in missing:
                place.rmdir()
        raise


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Add a line to a file that is its owner's alone, in one piece.

    Where a disk that was full has left half a line at the end, the line does not become a part of
    it. A ``durable`` line is there after a power cut once this has returned.

    Raises:
        OSError: the file cannot be written, or the disk has no room for all of the line.
    """
    is_new = durable and not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE)
    try:
        size = os.fstat(handle).st_size
        is_cut = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        content = (f"\n{line}\n" if is_cut else f"{line}\n").encode()
        if os.write(handle, content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        if durable:
            os.fsync(handle)
    finally:
        os.close(handle)
    if is_new:
        _sync_folder(path.parent)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write ``text`` atomically as UTF-8, with the permissions ``mode``.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    with atomic_path(path, mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Write ``value`` atomically as indented JSON, with the permissions ``mode``.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    write_text(path, json.dumps(value, indent=2) + "\n", mode)


def read_json(path: Path, most: int = MOST_JSON) -> Any:
    """Read a JSON file written by :func:`write_json`, of at most ``most`` bytes.

    Raises:
        ConsiliumError: the file has more bytes.
        OSError, ValueError: the file is not there, or is not JSON, or is nested deeper than
            anything here is.
    """
    size = path.stat().st_size
    if size > most:
        raise ConsiliumError(
            f"The file {path} is refused: it has {size} bytes, and at most {most} are read. It is "
            "damaged, or was not written by this project; put back the one that was."
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def md5_of(path: Path) -> str:
    """The MD5 of a file as hexadecimal digits.

    The data sets publish theirs; it is not used for security.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
