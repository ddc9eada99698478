"""Sets of records, each stored once under its own digest.

A set is a text file with the digest of one record in each line, sorted; a record that is held twice
stands there twice. Its name is the SHA-256 of the file, as ``sha256sum`` prints it. An entry that
names a set can therefore not be made to mean other records: a changed file no longer fits its name.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import atomic_path

Records = frozenset[str]


@dataclass(frozen=True)
class RecordSet:
    """A set of records and its name.

    ``copies`` says how often each record is held that is held more than once: such a record adds as
    many terms to a sum over the set.
    """

    name: str
    records: Records
    copies: Mapping[str, int]


@lru_cache(maxsize=1024)
def _record_set(records: tuple[str, ...]) -> RecordSet:
    return _named(sha256(_text(records)).hexdigest(), records)


def _named(name: str, records: Iterable[str]) -> RecordSet:
    counts = Counter(records)
    several = {record: count for record, count in counts.items() if count > 1}
    return RecordSet(name, frozenset(counts), several)


def record_set(records: Collection[str]) -> RecordSet:
    """The set of these records; their order does not matter."""
    return _record_set(tuple(records))


# For each folder and name, the set that this process has read or written.
_KNOWN: dict[Path, dict[str, RecordSet]] = {}


class RecordSets:
    """The stored sets of a folder; those that this process has read or written stay in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known = _KNOWN.setdefault(folder, {})

    def path(self, name: str) -> Path:
        """The file of a set."""
        return self.folder / f"{name}.txt"

    def store(self, one: RecordSet) -> None:
        """Store a set, synced to the disk."""
        if one.name in self._known and self.path(one.name).is_file():
            return
        if not self._whole(one.name):
            with atomic_path(self.path(one.name), 0o600) as temporary:
                temporary.write_bytes(_text(_all(one)))
        self._known[one.name] = one

    def read(self, name: str) -> Records:
        """The records of a set.

        Raises:
            ConsiliumError: the set is missing, or is not the one that was stored.
        """
        return self._get(name).records

    def copies(self, name: str) -> Mapping[str, int]:
        """How often each record of a set is held that is held more than once.

        Raises:
            ConsiliumError: the set is missing, or is not the one that was stored.
        """
        return self._get(name).copies

    def _get(self, name: str) -> RecordSet:
        if name not in self._known:
            self._known[name] = self.check(name)
        return self._known[name]

    def check(self, name: str) -> RecordSet:
        """A set as it is on the disk.

        Raises:
            ConsiliumError: the set is missing, or is not the one that was stored.
        """
        if not self._whole(name):
            raise ConsiliumError(
                f"The set of records {self.path(name)}, which entries of the privacy ledger name, "
                "is missing or was changed. Nothing more is released from this data. Put it back "
                "from a copy."
            )
        return _named(name, self.path(name).read_text(encoding="ascii").split())

    def _whole(self, name: str) -> bool:
        path = self.path(name)
        return path.is_file() and sha256(path.read_bytes()).hexdigest() == name


def _all(one: RecordSet) -> list[str]:
    return [record for record in one.records for _ in range(one.copies.get(record, 1))]


def _text(records: Iterable[str]) -> bytes:
    return "".join(f"{record}\n" for record in sorted(records)).encode("ascii")
