"""Where the tests' temporary files lie: in memory where there is room for them, else on the disk.

Whatever is written for good is synced to the disk, which takes milliseconds each time, and a small
run does it some hundred times: tests of runs would spend half their time waiting for the disk.
Nothing is left out for it, calls of ``fsync`` and SQLite's among them; they are only quick.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

IN_MEMORY = Path("/dev/shm")
# Two test processes keep under 1 GB at once, and the workers of runs want memory too.
ROOM = 4 * 2**30


def use_ram_disk() -> None:
    """Let this process, and those that it starts, make their temporary files in memory.

    Nothing changes where there is too little room, or where ``TMPDIR`` says what is wanted.
    """
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = tempfile.tempdir = str(IN_MEMORY)


def _has_room() -> bool:
    if not (IN_MEMORY.is_dir() and os.access(IN_MEMORY, os.W_OK | os.X_OK)):
        return False
    free = min(shutil.disk_usage(IN_MEMORY).free, psutil.virtual_memory().available)
    return free >= ROOM
