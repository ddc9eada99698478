"""Which code made a result."""

import json
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

# What is said of a commit where nobody knows it.
UNKNOWN = "unknown"

# The libraries that the numbers of a site's training depend on, beside the code here.
LIBRARIES = ("numpy", "opacus", "torch", "torchio")
# What the two sides of a consortium tell each other of their programs.
PROGRAMS = ("consilium", "torch", "prefect", "numpy", "opacus", "tenseal")

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
    said = _git(folder, ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
    return said or UNKNOWN


def _git(folder: Path, words: Sequence[str]) -> str | None:
    """What git says in a folder; ``None`` where it fails, or there is none."""
    try:
        done = subprocess.run(  # noqa: S603 - words of our own
            ["git", *words],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def code_commit(file: Path = Path(__file__)) -> str:
    """The commit of the code that runs here, wherever it was started.

    That is the one of the checkout that the code lies in, with ``-dirty`` if files were changed
    there, or the one that it was installed from, which pip writes down for an address of a
    repository (``direct_url.json``). A checkout in which the code only lies by chance, as the
    folder of an environment may, tracks none of it and says nothing about it.

    Args:
        file: a file of the code.

    Returns:
        The commit; ``unknown`` where neither is known.
    """
    if _git(file.parent, ["ls-files", "--error-unmatch", "--", file.name]):
        return git_commit(file.parent)
    return _installed_commit(file) or UNKNOWN


def _installed_commit(file: Path) -> str | None:
    """The commit that a file was installed from, if it is one of what is installed."""
    try:
        found = distribution("consilium")
        # Another copy of the program may come before it on Python's path.
        if not Path(str(found.locate_file("federated"))).samefile(file.parent):
            return None
        told = json.loads(found.read_text("direct_url.json") or "{}")
        commit = str(told.get("vcs_info", {}).get("commit_id", ""))
    except (PackageNotFoundError, OSError, ValueError, AttributeError):
        return None
    return commit if re.fullmatch("[0-9a-f]{40,64}", commit) else None


def told_commit(commit: str, of: Mapping[str, str]) -> str:
    """A commit as a person is told it.

    Args:
        commit: what :func:`code_commit` gives, or :func:`short_commit` of it.
        of: what :func:`versions` gives.

    Returns:
        The commit, or the version of the program where the commit is not known.
    """
    if commit != UNKNOWN:
        return commit
    return f"version {of.get('consilium', UNKNOWN)}, commit unknown"


def short_commit(commit: str) -> str:
    """The first ten digits of what :func:`code_commit` gives, and whether files were changed."""
    return commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")


def own_program() -> str:
    """Which program runs here, for a person: its version, and its commit if that is known."""
    commit, of = short_commit(code_commit()), versions()
    told = told_commit(commit, of)
    return told if commit == UNKNOWN else f"version {of.get('consilium', UNKNOWN)}, commit {told}"


def own_versions() -> dict[str, str]:
    """The versions of this program and of what the sums of a training depend on."""
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
