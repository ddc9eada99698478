"""A process whose copies die at each write of a private site's training, and are asked again.

Run on its own: a process that has once computed gradients cannot be copied. It prints, as a line of
JSON for each moment, what was on the disk at the site's death and after it was asked again.
"""

import json
import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch
import torch._dynamo  # at its first step an optimizer imports it, and here each copy's is the first

from federated.run.folder import RunFolder
from federated.secrets.home import consilium_home
from federated.stages.local_train import train_site
from federated.stages.privacy_report import report_site
from federated.stages.worker import site_cases
from tests.federated.federation import SITE

KILLED = 9


def copied(action: Callable[[], None]) -> int:
    """Do something in a copy of this process; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        torch.set_num_threads(1)
        action()
        os._exit(0)
    finally:
        os._exit(1)


def die_at(moment: int) -> None:
    """Let this process end, as by a power cut, just before its n-th write."""
    count = 0

    def mortal(function):
        def call(*arguments, **named):
            nonlocal count
            count += 1
            if count == moment:
                os._exit(KILLED)
            return function(*arguments, **named)

        return call

    os.write, os.fsync, os.ftruncate = mortal(os.write), mortal(os.fsync), mortal(os.ftruncate)
    Path.replace = mortal(Path.replace)


def seen(run: RunFolder) -> dict[str, object]:
    """Entries of the ledger, whether the release is stored, and what was sent of update and memory.

    None of it is read in the mortal process.
    """
    paths = [run.site_path(1, SITE, "update"), run.memory_path(1, SITE)]
    return {
        "entries": len(report_site(run.root, SITE)["releases"]),
        "stored": any((consilium_home() / "releases").rglob("*.release")),
        **{p.parent.name: sha256(p.read_bytes()).hexdigest() for p in paths if p.is_file()},
    }


def lives(run: RunFolder, home: Path, moment: int) -> bool:
    """One death; whether the process lived to the end instead."""
    os.environ["CONSILIUM_HOME"] = str(home / str(moment))
    for path in (run.site_path(1, SITE, "update"), run.memory_path(1, SITE)):
        path.unlink(missing_ok=True)

    def live() -> None:
        die_at(moment)
        train_site(run.root, SITE, 1)

    code = copied(live)
    assert code in (0, KILLED), code
    at_death = seen(run)
    assert copied(lambda: train_site(run.root, SITE, 1)) == 0
    print(json.dumps([at_death, seen(run)]), flush=True)
    return code == 0


if __name__ == "__main__":
    folder = RunFolder(Path(sys.argv[1]))
    # Read once, for all copies.
    assert site_cases(folder.root, SITE, "train").records
    for number in range(1, 1000):
        if lives(folder, Path(sys.argv[2]), number):
            break
