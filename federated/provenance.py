"""Which code made a result."""

import platform
import subprocess
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# The libraries that the numbers of a site's training depend on, beside the code here.
LIBRARIES = ("numpy", "opacus", "torch", "torchio")
# What the two sides of a consortium tell each other of their programs.
PROGRAMS = ("torch", "prefect", "numpy", "opacus", "tenseal")

# What else a person asks for who makes a run again.
BESIDE = ("consilium", "dvc", "mlflow", "monai", "prefect", "tenseal")


@cache
def installed(name: str) -> str:
    """The version of a library that is installed, which is looked for once in a process.

    Raises:
        PackageNotFoundError: it is not installed.
    """
    return version(name)


def versions() -> dict[str, str]:
    """The versions of Python and of the libraries that a run was made with, by name.

    One that is not installed is left out.
    """
    found = {"python": platform.python_version()}
    for name in sorted((*LIBRARIES, *BESIDE)):
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str:
    """The commit of a checkout, with ``-dirty`` if files were changed; ``unknown`` outside one."""
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


def short_commit(commit: str) -> str:
    """The first ten digits of what :func:`git_commit` gives, and whether files were changed."""
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def own_versions() -> dict[str, str]:
    """The versions of what the sums of a training depend on."""
    return {name: installed(name) for name in PROGRAMS}


@lru_cache(maxsize=1)
def code_digest() -> str:
    """The SHA-256 of the code that trains, as hexadecimal digits.

    It is taken of the library's and the networks' files, as installed, and of the versions of
    :data:`LIBRARIES`. It needs no checkout, and it tells changes apart that were not committed. It
    is computed once in a process.
    """
    digest = sha256(" ".join(installed(name) for name in LIBRARIES).encode())
    # Found, and not imported: it imports torch.
    networks = find_spec("models")
    assert networks is not None
    assert networks.origin is not None
    roots = {"federated": Path(__file__).parent, "models": Path(networks.origin).parent}
    for package, root in roots.items():
        for path in sorted(root.rglob("*.py")):
            digest.update(f"|{package}/{path.relative_to(root)}|".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
