"""Which commit a result is said to be of: that of the code, and never another one."""

import json
import subprocess
from pathlib import Path

import pytest

from federated import provenance
from federated.provenance import (
    UNKNOWN,
    code_commit,
    git_commit,
    own_program,
    short_commit,
    told_commit,
)

FROM_GIT = {"url": "https://example.org/consilium.git", "vcs_info": {"vcs": "git"}}


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *named, *words], cwd=folder, capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


def checkout(folder: Path) -> str:
    """A repository with a program in it; its commit."""
    (folder / "federated").mkdir(parents=True)
    (folder / "federated" / "provenance.py").write_text("first = 1\n")
    (folder / ".gitignore").write_text(".venv\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


def installed(packages: Path, direct_url: object) -> Path:
    """An installation of the program, with what pip writes down of where it came from."""
    (packages / "federated").mkdir(parents=True)
    (packages / "federated" / "provenance.py").write_text("first = 1\n")
    about = packages / "consilium-7.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: consilium\nVersion: 7.0\n")
    if direct_url is not None:
        (about / "direct_url.json").write_text(json.dumps(direct_url))
    return packages / "federated" / "provenance.py"


def test_code_in_a_checkout_is_of_its_commit_wherever_it_is_started(tmp_path, monkeypatch):
    commit = checkout(tmp_path / "clone")
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    file = tmp_path / "clone" / "federated" / "provenance.py"
    assert code_commit(file) == commit
    file.write_text("first = 2\n")
    assert code_commit(file) == f"{commit}-dirty"
    assert short_commit(code_commit(file)) == f"{commit[:10]}-dirty"


def test_code_that_only_lies_in_somebodys_checkout_is_not_of_its_commit(tmp_path, monkeypatch):
    """As an environment does that was made in the folder of another project."""
    commit = checkout(tmp_path)
    packages = tmp_path / ".venv" / "lib"
    file = installed(packages, None)
    monkeypatch.syspath_prepend(str(packages))
    assert git_commit(file.parent) == commit
    assert code_commit(file) == UNKNOWN


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (FROM_GIT | {"vcs_info": {"vcs": "git", "commit_id": "ab" * 20}}, "ab" * 20),
        (FROM_GIT | {"vcs_info": {"vcs": "git", "commit_id": "main; rm -rf"}}, UNKNOWN),
        (FROM_GIT, UNKNOWN),
        ({"url": "file:///srv/consilium", "dir_info": {}}, UNKNOWN),
        ([], UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_code_that_was_installed_is_of_the_commit_that_pip_wrote_down(
    told, expected, tmp_path, monkeypatch
):
    file = installed(tmp_path / "packages", told)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    assert code_commit(file) == expected
    # A copy of the program that runs in its place is nothing that pip knows.
    copy = tmp_path / "copy" / "federated" / "provenance.py"
    copy.parent.mkdir(parents=True)
    copy.write_text("first = 1\n")
    assert code_commit(copy) == UNKNOWN


def test_where_git_is_not_installed_nothing_is_said_of_a_commit(tmp_path, monkeypatch):
    checkout(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_commit(tmp_path / "federated" / "provenance.py") == UNKNOWN


def test_who_has_no_commit_is_told_the_version(monkeypatch):
    assert told_commit("ab" * 20, {"consilium": "7.0"}) == "ab" * 20
    assert told_commit(UNKNOWN, {"consilium": "7.0"}) == "version 7.0, commit unknown"
    assert told_commit(UNKNOWN, {}) == "version unknown, commit unknown"
    monkeypatch.setattr(provenance, "versions", lambda: {"consilium": "7.0"})
    monkeypatch.setattr(provenance, "code_commit", lambda: UNKNOWN)
    assert own_program() == "version 7.0, commit unknown"
    monkeypatch.setattr(provenance, "code_commit", lambda: f"{'ab' * 20}-dirty")
    assert own_program() == "version 7.0, commit ababababab-dirty"
