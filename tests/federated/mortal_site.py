"""A process whose copies die at each write of a private site's training, and are asked again.

Run on its own: a process that has once computed gradients cannot be copied. It prints, as a line of
JSON for each moment, what was on the disk at the site's death and after it was asked again.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import torch

from federated.site.home import SiteHome
from federated.stages.local_train import train_site
from federated.stages.privacy_report import report_site
from federated.stages.site import SiteCall, open_site
from federated.stages.worker import site_cases

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


def files(call: SiteCall) -> list[Path]:
    store = SiteHome(call.home).run(call.run)
    return [store.work_path(1, "update"), store.memory_path(1)]


def stored(call: SiteCall) -> bool:
    return any(SiteHome(call.home).run(call.run).releases.rglob("*.release"))


def seen(call: SiteCall) -> dict[str, object]:
    """Entries of the ledger, whether the release is stored, and what was sent of update and memory.

    None of it is read in the mortal process.
    """
    return {
        "entries": len(report_site(call)["releases"]),
        "stored": stored(call),
        **{p.parent.name: sha256(p.read_bytes()).hexdigest() for p in files(call) if p.is_file()},
    }


def lives(call: SiteCall, home: Path, moment: int) -> bool:
    """One death; whether the process lived to the end instead."""
    os.environ["CONSILIUM_HOME"] = str(home / str(moment))
    for path in files(call):
        path.unlink(missing_ok=True)
    shutil.rmtree(SiteHome(call.home).run(call.run).releases, ignore_errors=True)
    SiteHome(call.home).run(call.run).entered_path.unlink(missing_ok=True)

    def live() -> None:
        die_at(moment)
        train_site(call, 1)

    code = copied(live)
    assert code in (0, KILLED), code
    at_death = seen(call)
    assert copied(lambda: train_site(call, 1)) == 0
    print(json.dumps([at_death, seen(call)]), flush=True)
    return code == 0


if __name__ == "__main__":
    call = SiteCall(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], 1)
    # Read once, for all copies.
    assert site_cases(open_site(call), "train").records
    for number in range(1, 1000):
        if lives(call, Path(sys.argv[4]), number):
            break
