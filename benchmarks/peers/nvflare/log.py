"""When rounds began and ended, by the log of NVIDIA FLARE's server."""

import re
from datetime import datetime

TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")
# They stand on a line of their own, below the one that has the time.
MARK = re.compile(r"Round \d+ started|Finished FedAvg")


def marks_of(log: str) -> list[float]:
    """When rounds began, and when the last of them ended, in seconds since the epoch."""
    found, last = [], ""
    for line in log.splitlines():
        if time := TIME.match(line):
            last = time[1]
        if last and MARK.search(line):
            told = datetime.strptime(last, "%Y-%m-%d %H:%M:%S,%f").astimezone()
            found.append(told.timestamp())
    return found
