"""The memory of a process: how much it took, and how it is kept."""

import ctypes
from pathlib import Path

import psutil

# glibc's numbers of these settings, in malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the kernel.

    Every step takes and frees the same activations and gradients, and each time the kernel would
    fill new pages with zeros; with gradients of single cases that took nearly half of the time.
    Only glibc has the setting; elsewhere this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(setting, 2**31 - 1)


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
