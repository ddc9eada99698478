"""Files to which other processes add lines of JSON: each line is read once."""

import json
from pathlib import Path
from typing import Any

# In bytes, that are read at once; the rest is read the next time.
MOST = 16 * 2**20


class Appended:
    """The lines of a file that were not read before.

    A file that is another one, or shorter than it was, is read from its beginning.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode, self._offset = 0, 0

    def new(self) -> list[dict[str, Any]]:
        """The lines that are whole and were not read before; none where there is no file."""
        try:
            with self._path.open("rb") as file:
                told = self._path.stat()
                if told.st_ino != self._inode or told.st_size < self._offset:
                    self._inode, self._offset = told.st_ino, 0
                file.seek(self._offset)
                content = file.read(MOST)
        except OSError:
            return []
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return [line for line in map(_value, content.splitlines()) if isinstance(line, dict)]


def _value(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None  # whoever wrote it was killed within it
