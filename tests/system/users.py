"""Users of the machine that are made for a test, and processes that run as one of them."""

import os
import pwd
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

WITHOUT = (
    "NOT ROOT, or without useradd, unshare and setpriv, so nothing shows that the parties' files "
    "are closed to each other: run this test as root"
)
# Shows the interpreter alone where it lies in somebody's closed home, and gives up every right.
AS_USER = """
set -e
python=$1 closed=$2 stage=$3 user=$4 group=$5; shift 5
if [ -n "$closed" ]; then
  mount --bind "$python" "$stage"
  mount -t tmpfs -o mode=755 none "$closed"
  mkdir -p "$python"
  mount --bind "$stage" "$python"
fi
exec setpriv --reuid="$user" --regid="$group" --clear-groups --no-new-privs --inh-caps=-all "$@"
"""


@dataclass(frozen=True)
class User:
    """A user of the machine, and a folder that is this user's alone."""

    name: str
    folder: Path

    @property
    def ids(self) -> tuple[int, int]:
        entry = pwd.getpwnam(self.name)
        return entry.pw_uid, entry.pw_gid

    def own(self) -> None:
        """Make everything in the folder this user's, and closed to others at its top."""
        for path in (self.folder, *self.folder.rglob("*")):
            os.chown(path, *self.ids, follow_symlinks=False)
        self.folder.chmod(0o700)

    def command(self, *words: str) -> list[str]:
        """A command as this user, in a view of the machine in which Python can be read."""
        python = Path(sys.base_prefix).resolve()
        stage = self.folder.parent / "python"
        stage.mkdir(exist_ok=True)
        where = [str(python), str(_closed(python) or ""), str(stage), *map(str, self.ids)]
        return ["unshare", "--mount", "bash", "-c", AS_USER, "bash", *where, *words]

    def can(self, what: str, path: Path) -> bool:
        """Whether this user can ``read``, ``list`` or ``write`` something, by the system itself."""
        told = {"read": "cat {} >/dev/null", "list": "ls {} >/dev/null", "write": "touch {}"}
        line = told[what].format(shlex.quote(str(path)))
        asked = ["su", "-s", "/bin/sh", self.name, "-c", line]
        return subprocess.run(asked, capture_output=True, timeout=60, check=False).returncode == 0


def _closed(path: Path) -> Path | None:
    """The topmost folder above a path that others may not enter; ``None`` without one."""
    above = [path, *path.parents]
    return next((each for each in reversed(above) if not each.stat().st_mode & 0o001), None)


@contextmanager
def users(root: Path, names: Sequence[str]) -> Iterator[Mapping[str, User]]:
    """A user for each name, with a folder below ``root``; all are gone afterwards."""
    if os.geteuid() != 0 or not all(
        map(shutil.which, ("useradd", "userdel", "unshare", "setpriv"))
    ):
        pytest.skip(WITHOUT)
    root.chmod(0o711)
    made: dict[str, User] = {}
    try:
        for name in names:
            user = User(f"consilium-{os.getpid()}-{name[-3:]}", root / name)
            user.folder.mkdir(exist_ok=True)
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", user.name],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            made[name] = user
        yield made
    finally:
        for user in made.values():
            subprocess.run(["userdel", user.name], check=True, capture_output=True, timeout=60)
