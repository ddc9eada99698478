"""A party's audit log: what it has been sent, what it has sent, and what it has refused and why.

It is a file of JSON lines in the party's own home, to which lines are only added.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from federated.files import append_line, make_folders

# A line is written in one piece, so that several processes may write to one log.
LONGEST = 2000


@dataclass(frozen=True)
class AuditLog:
    """The log in the file ``path``, open to its owner alone."""

    path: Path

    def add(self, event: str, **what: Any) -> None:
        """Add a line: when, what happened, and to what.

        Values longer than :data:`LONGEST` characters are cut.

        Raises:
            OSError: it cannot be written.
        """
        line: dict[str, str | int] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
        }
        for key, value in what.items():
            line[key] = value if type(value) is int else str(value)[:LONGEST]
        make_folders(self.path.parent, private=True)
        append_line(self.path, json.dumps(line))

    def lines(self) -> list[dict[str, Any]]:
        """All lines, the oldest first; one that a full disk has cut short is left out."""
        if not self.path.is_file():
            return []
        found = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found
