"""The home of a site: the one absolute place for everything that is the site's own.

Its keys, its privacy ledger and the releases that it has made lie below it, whatever folder a
command is started in. It is ``CONSILIUM_HOME``, or ``~/.consilium``; its owner alone can read it.
"""

import os
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import OTHERS, make_folders


def consilium_home() -> Path:
    """The site's home as an absolute path; it is not made here."""
    return Path(os.environ.get("CONSILIUM_HOME") or Path.home() / ".consilium").resolve()


def private_folder(folder: Path, root: Path | None = None) -> Path:
    """Make a folder for secrets, with those above it that are missing, and return it.

    What is made is open to its owner alone under every umask. What was there before is checked,
    from ``folder`` up to ``root``, which is the site's home if left out; what is further up is not
    the site's.

    Raises:
        ConsiliumError: a folder from ``root`` down is open to others.
        OSError: a folder cannot be made.
    """
    root = consilium_home() if root is None else root
    make_folders(folder, private=True)
    for place in (folder, *folder.parents):
        if not place.is_relative_to(root):
            break
        refuse_open(place)
    return folder


def refuse_open(path: Path) -> None:
    """Refuse a file or folder of the site's own that other users of the machine can open.

    Raises:
        ConsiliumError: they can; the message names the permissions, and how to take them away.
        OSError: the file or folder is not there.
    """
    mode = path.stat().st_mode & 0o777
    if mode & OTHERS:
        kind, closed = ("folder", "700") if path.is_dir() else ("file", "600")
        raise ConsiliumError(
            f"The {kind} {path} is for its owner alone, but has permissions {mode:03o}, so other "
            f"users of this machine can open it. Close it with `chmod {closed} {path}`, and find "
            "out who has read it."
        )
