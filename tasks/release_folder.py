"""The folder of a dossier: it is there whole or not at all, and what lies in it can be checked."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federated.errors import ConsiliumError, unreadable
from federated.exchange.identity import SIGNATURE_BYTES, Identity
from federated.files import MOST_JSON, cannot_write, make_folders
from federated.release.manifest import MANIFEST, SIGNATURE, FileFact, Manifest, check, signed

FOLDER_MODE = 0o755


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name ``out`` once all is written.

    On any exception nothing is left.

    Raises:
        ConsiliumError: ``out`` is there and not an empty folder, or cannot be made.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConsiliumError(
            f"{out} is there already, and a dossier is never written over another. Name a new "
            "folder with --out."
        )
    place = out.resolve()
    try:
        make_folders(place.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise cannot_write(place.parent, error, "--out") from error
    try:
        yield temporary
        temporary.chmod(FOLDER_MODE)
        temporary.replace(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sign_folder(folder: Path, name: str, version: str, run_id: str, identity: Identity) -> Manifest:
    """Write the manifest of what lies in a folder, and its signature.

    Args:
        folder: with all other files of the dossier.
        name: of the model in the registry.
        version: its version there.
        run_id: the run that trained it.
        identity: who signs.
    """
    files = {path: fact for path, fact in _facts(folder).items() if fact is not None}
    manifest = Manifest(name, version, run_id, identity.public, files)
    content, signature = signed(manifest, identity)
    (folder / MANIFEST).write_bytes(content)
    (folder / SIGNATURE).write_bytes(signature)
    return manifest


def verify_folder(folder: Path, key: str | None = None) -> Manifest:
    """Check a dossier, and return its manifest.

    Args:
        folder: of the dossier.
        key: the fingerprint of who was to sign it; ``None`` where nobody has told it.

    Raises:
        ConsiliumError: it is no dossier, or not as it was signed; the message says what is wrong.
    """
    if not folder.is_dir():
        raise ConsiliumError(f"There is no folder {folder}. Name the folder of a dossier.")
    content = _read(folder / MANIFEST, MOST_JSON)
    signature = _read(folder / SIGNATURE, SIGNATURE_BYTES)
    found = _facts(folder)
    return check(content, signature, {p: f for p, f in found.items() if p not in OWN}, key)


OWN = (MANIFEST, SIGNATURE)


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


def _facts(folder: Path) -> dict[str, FileFact | None]:
    """Every file below a folder by its path, hidden ones too; ``None`` is what is no plain file."""
    found: dict[str, FileFact | None] = {}

    def unseen(error: OSError) -> None:
        raise unreadable(Path(error.filename or folder), error) from error

    for place, folders, names in os.walk(folder, onerror=unseen):
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(place) / name
            try:
                fact = _fact(path) if _is_plain(path) else None
            except OSError as error:
                raise unreadable(path, error) from error
            found[path.relative_to(folder).as_posix()] = fact
    return found


def _is_plain(path: Path) -> bool:
    """Whether it is a file itself, and no link, pipe or device, which reading might never end."""
    return path.is_file() and not path.is_symlink()


def _fact(path: Path) -> FileFact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileFact(path.stat().st_size, digest)
