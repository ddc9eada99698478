"""When rounds began and ended, by the log of NVIDIA FLARE's server."""

import re
from datetime import datetime

STARTED = re.compile(r"^(\S+ \S+) .*(?:Round (\d+) started|Finished FedAvg)")


def marks_of(log: str) -> list[float]:
    """When rounds began, and when the last of them ended, by the server's log."""
    found = [match for match in map(STARTED.match, log.splitlines()) if match]
    return [
        datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()
        for match in found
    ]
