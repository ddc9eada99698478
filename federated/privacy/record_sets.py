"""Sets of records, each stored once under its own digest.

A set is a text file with the digest of a record a line, sorted, each once; its name is the SHA-256
of the file, as ``sha256sum`` prints it. An entry that names a set can therefore not be made to mean
other records: a changed file no longer fits its name.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import atomic_path

Records = frozenset[str]


@dataclass(frozen=True)
class RecordSet:
    """A set of records and its name."""

    name: str
    records: Records


@lru_cache(maxsize=1024)
def _record_set(records: tuple[str, ...]) -> RecordSet:
    members = frozenset(records)
    return RecordSet(sha256(_text(members)).hexdigest(), members)


def record_set(records: Collection[str]) -> RecordSet:
    """The set of these records; in which order and how often they stand does not matter."""
    return _record_set(tuple(records))


class RecordSets:
    """The stored sets of a folder; what was read or written once is kept in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, Records] = {}

    def path(self, name: str) -> Path:
        """Where a set lies."""
        return self.folder / f"{name}.txt"

    def store(self, one: RecordSet) -> None:
        """Store a set, synced to the disk."""
        if one.name in self._known and self.path(one.name).is_file():
            return
        if not self._whole(one.name):
            with atomic_path(self.path(one.name), 0o600) as temporary:
                temporary.write_bytes(_text(one.records))
        self._known[one.name] = one.records

    def read(self, name: str) -> Records:
        """The records of a set.

        Raises:
            ConsiliumError: it is missing, or not the one that was stored.
        """
        if name not in self._known:
            self._known[name] = self.check(name)
        return self._known[name]

    def check(self, name: str) -> Records:
        """As :meth:`read`, from the disk."""
        if not self._whole(name):
            raise ConsiliumError(
                f"The set of records {self.path(name)}, which entries of the privacy ledger name, "
                "is missing or was changed. Nothing more is released from this data. Put it back "
                "from a copy."
            )
        return frozenset(self.path(name).read_text(encoding="ascii").split())

    def _whole(self, name: str) -> bool:
        path = self.path(name)
        return path.is_file() and sha256(path.read_bytes()).hexdigest() == name


def _text(records: Records) -> bytes:
    return "".join(f"{record}\n" for record in sorted(records)).encode("ascii")
