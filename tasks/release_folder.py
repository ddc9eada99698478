"""The folder of a dossier: it is there whole or not at all, and what lies in it can be checked."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from federated.errors import ConsiliumError, unreadable
from federated.exchange.identity import SIGNATURE_BYTES, Identity
from federated.files import cannot_write, make_folders
from federated.release.manifest import (
    MANIFEST,
    MOST_MANIFEST,
    SIGNATURE,
    FileFact,
    Manifest,
    check,
    refuse_other_files,
    signed,
)

FOLDER_MODE = 0o755
# Between the name that a folder is to have and the letters that are drawn for it while it is made.
MADE = ".consilium-dossier-"
OWN = (MANIFEST, SIGNATURE)


def refuse_taken(out: Path) -> None:
    """Refuse a folder that no new dossier can take the place of; nothing is made.

    Raises:
        ConsiliumError: it is there and not empty, or is no folder; or it is empty and cannot be
            replaced: the working folder, or where a disk is mounted.
    """
    try:
        place = out.resolve()
        if place == Path.cwd():
            raise ConsiliumError(
                f"--out={out} is the folder that you are in, and a dossier is a folder of its own. "
                "Name a new one in it, as --out dossier."
            )
        if os.path.ismount(place):
            raise ConsiliumError(
                f"--out={out} is where a disk is mounted, and a dossier appears whole or not at "
                f"all, which needs a new name. Name a new folder in it, as --out {out / 'dossier'}."
            )
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise ConsiliumError(
                f"{out} is there already, and a dossier is never written over another. Name a new "
                "folder with --out."
            )
    except OSError as error:
        raise cannot_write(out, error, "--out") from error


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name ``out`` once all is written.

    On any exception nothing is left. What a process has left that was killed meanwhile is removed
    by the next one that makes a folder of the same name.

    Raises:
        ConsiliumError: ``out`` is refused by :func:`refuse_taken`, or cannot be made.
    """
    refuse_taken(out)
    place = out.resolve()
    try:
        make_folders(place.parent)
        _remove_left_behind(place)
        temporary, handle = _held_folder(place)
    except OSError as error:
        raise cannot_write(place.parent, error, "--out") from error
    try:
        yield temporary
        try:
            temporary.chmod(FOLDER_MODE)
            temporary.replace(place)
        except OSError as error:
            raise cannot_write(place, error, "--out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        os.close(handle)


def _held_folder(place: Path) -> tuple[Path, int]:
    """A new folder beside ``place``, and a handle by which this process holds its lock.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        made = Path(tempfile.mkdtemp(prefix=f".{place.name}{MADE}", dir=place.parent))
        handle = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), made.stat()):
                return made, handle
        # Somebody took it for one that was left behind, before it was locked.
        os.close(handle)


def _remove_left_behind(place: Path) -> None:
    """Remove the folders that were made for ``place`` by processes that live no more."""
    for left in place.parent.glob(f".{escape(place.name)}{MADE}*"):
        if left.is_symlink() or not left.is_dir() or left.stat().st_uid != os.geteuid():
            continue
        try:
            handle = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another process was quicker
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # somebody writes into it now
        else:
            shutil.rmtree(left, ignore_errors=True)
        finally:
            os.close(handle)


def sign_folder(folder: Path, name: str, version: str, run_id: str, identity: Identity) -> Manifest:
    """Write the manifest of what lies in a folder, and its signature.

    Args:
        folder: with all other files of the dossier.
        name: of the model in the registry.
        version: its version there.
        run_id: the run that trained it.
        identity: who signs.
    """
    plain = [path for path, size in _sizes(folder).items() if size is not None]
    files = {path: _fact(folder / path) for path in plain}
    manifest = Manifest(name, version, run_id, identity.public, files)
    content, signature = signed(manifest, identity)
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(signature)
    return manifest


def verify_folder(folder: Path, key: str | None = None) -> Manifest:
    """Check a dossier, and return its manifest.

    The signature comes first, and then the files that it is about: of a file that the manifest does
    not name, or names with another size, nothing is read.

    Args:
        folder: of the dossier.
        key: the fingerprint of who was to sign it; ``None`` where nobody has told it.

    Raises:
        ConsiliumError: it is no dossier, or not as it was signed; the message says what is wrong.
    """
    if not folder.is_dir():
        raise ConsiliumError(f"There is no folder {folder}. Name the folder of a dossier.")
    content = _read(folder / MANIFEST, MOST_MANIFEST)
    signature = _read(folder / SIGNATURE, SIGNATURE_BYTES)
    manifest = check(content, signature, key)
    sizes = _sizes(folder, OWN)
    refuse_other_files(manifest, _found(folder, manifest.files, sizes))
    return manifest


def _found(
    folder: Path, released: Mapping[str, FileFact], sizes: Mapping[str, int | None]
) -> dict[str, FileFact | None]:
    """What is there of each file; ``None`` for one whose size says that it is none of these."""
    found: dict[str, FileFact | None] = {}
    for path, size in sizes.items():
        named = released.get(path)
        found[path] = _fact(folder / path) if named and named.size == size else None
    return found


def _read(path: Path, most: int) -> bytes:
    try:
        if not _is_plain(path):
            raise ConsiliumError(
                f"The folder {path.parent} is no dossier, or not a whole one: it has no file "
                f"{path.name}. Get it again from who has made it."
            )
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > most:
        raise ConsiliumError(
            f"The file {path} is larger than that of any dossier. Get the dossier again from who "
            "has made it."
        )
    return content


def _sizes(folder: Path, without: Container[str] = ()) -> dict[str, int | None]:
    """The size of every file below a folder, by its path, hidden ones too.

    ``None`` is what is no plain file, a folder with nothing in it too. Those of ``without`` are
    left out.
    """
    found: dict[str, int | None] = {}

    def unseen(error: OSError) -> None:
        raise unreadable(Path(error.filename or folder), error) from error

    for place, folders, names in os.walk(folder, onerror=unseen):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        if not (folders or names or Path(place) == folder):
            found[Path(place).relative_to(folder).as_posix()] = None
        for name in (*names, *links):
            path = Path(place) / name
            try:
                size = path.stat().st_size if _is_plain(path) else None
            except OSError as error:
                raise unreadable(path, error) from error
            if (known := path.relative_to(folder).as_posix()) not in without:
                found[known] = size
    return found


def _is_plain(path: Path) -> bool:
    """Whether it is a file itself, and no link, pipe or device, which reading might never end."""
    return path.is_file() and not path.is_symlink()


def _fact(path: Path) -> FileFact:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return FileFact(file.tell(), digest)
    except OSError as error:
        raise unreadable(path, error) from error
