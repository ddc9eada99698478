"""A party's audit log: what it has been sent, what it has sent, and what it has refused and why.

It is a file of JSON lines in the party's own home, to which lines are only added.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from federated.files import PRIVATE, make_folders

# A line is written in one piece, so that several processes may write to one log.
LONGEST = 2000


@dataclass(frozen=True)
class AuditLog:
    """The log in the file ``path``, open to its owner alone."""

    path: Path

    def add(self, event: str, **what: Any) -> None:
        """Add a line: when, what happened, and to what.

        Values longer than :data:`LONGEST` characters are cut.
        """
        line: dict[str, str | int] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
        }
        for key, value in what.items():
            line[key] = value if type(value) is int else str(value)[:LONGEST]
        make_folders(self.path.parent, private=True)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)

    def lines(self) -> list[dict[str, Any]]:
        """All lines, the oldest first."""
        if not self.path.is_file():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
