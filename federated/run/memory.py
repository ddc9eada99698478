"""The memory of a process: how much it took, and how it is kept."""

import ctypes
import os
from pathlib import Path

import psutil

# glibc's numbers of these settings, in malloc.h.
M_MXFAST, M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = 1, -1, -3
# What has glibc keep no small piece of freed memory aside; a process reads it as it starts.
NO_PIECES_ASIDE = "glibc.malloc.tcache_count=0"


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the kernel.

    Every step takes and frees the same activations and gradients, and each time the kernel would
    fill new pages with zeros; with gradients of single cases that took nearly half of the time.
    Only glibc has the settings; elsewhere this does nothing.

    A process that begins with :func:`in_whole_pieces` keeps it in pieces that fit again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(setting, 2**31 - 1)
    mallopt(M_MXFAST, 0)


def in_whole_pieces() -> dict[str, str]:
    """The environment with which a process puts freed memory together again at once.

    Torch asks for aligned memory, of which glibc cuts off what is over, some bytes. It keeps such
    pieces aside for the next small object, so that freed memory is shorter by them than what the
    next step asks for, and each step takes new memory (glibc's bug 14581, mended in 2023): workers
    took 350 MB for a network whose activations are 45 MB, and up to 350 more round by round.
    """
    before = os.environ.get("GLIBC_TUNABLES")
    return {"GLIBC_TUNABLES": ":".join(filter(None, (before, NO_PIECES_ASIDE)))}


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in MiB."""
    # psutil has no peak on Linux; the kernel's high-water mark has.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float(psutil.Process().memory_info().rss) / 2**20
