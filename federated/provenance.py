"""Which code made a result."""

import subprocess
from functools import lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import models

# What the numbers of a site's training come from, beside the code here.
LIBRARIES = ("numpy", "opacus", "torch", "torchio")


def git_commit(folder: Path) -> str:
    """The commit of a checkout, with ``-dirty`` for local changes; ``unknown`` outside one."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """The digest of the code that trains: the library's and the networks' files, as installed.

    It needs no checkout, and tells apart changes that were not committed. It is worked out once a
    process.
    """
    digest = sha256(" ".join(version(name) for name in LIBRARIES).encode())
    assert models.__file__ is not None
    roots = {"federated": Path(__file__).parent, "models": Path(models.__file__).parent}
    for package, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            digest.update(f"|{package}/{path.relative_to(root)}|".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
