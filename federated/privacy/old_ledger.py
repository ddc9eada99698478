"""Ledgers of versions that had one for each site and partition, and how to read them.

``DATASET/SITE-NAME.jsonl`` lay below ``.consilium/ledger`` in the working directory, or below
``CONSILIUM_LEDGER``; NAME is from the MD5 of the data's file and the indices of the site's training
cases. Each line is JSON with the hash of its sorted content; ``.head.json`` beside the file has the
last hash.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError
from federated.files import read_json
from federated.privacy.hash_chain import FIRST, Head
from federated.privacy.ledger import ledger_root

MIGRATED = ".migrated"


@dataclass(frozen=True)
class OldLedger:
    """A ledger file of an older version that was found whole: its entries and its head."""

    path: Path
    entries: tuple[dict[str, Any], ...]
    head: Head

    @property
    def site(self) -> str:
        """The site's name."""
        return self.path.stem.rpartition("-")[0]


def old_name(data_md5: str, site: str, training_cases: Iterable[int]) -> str:
    """The name, without its ending, that the ledger of these training cases had."""
    cases = ",".join(map(str, sorted(training_cases)))
    return f"{site}-{sha256(f'{data_md5}|{cases}'.encode()).hexdigest()[:12]}"


def old_files(dataset: str) -> list[Path]:
    """The files of a data set that have not been taken over yet."""
    places = {ledger_root(), Path(".consilium/ledger").resolve()}
    return sorted(path for place in places for path in (place / dataset).glob("*-*.jsonl"))


def read_old(path: Path) -> OldLedger:
    """Read a ledger file of an older version.

    Raises:
        ConsiliumError: the file is not whole.
    """
    entries: list[dict[str, Any]] = []
    hashes = [FIRST]
    for line in path.read_bytes().splitlines(True):
        if not line.endswith(b"\n"):
            break  # what a crash left of an entry
        try:
            entry = json.loads(line)
            right = entry["hash"] == _hash(entry) and entry["previous"] == hashes[-1]
        except (ValueError, KeyError, TypeError):
            right = False
        if not right:
            raise _changed(path, f"entry {len(entries) + 1} was changed, or one before it removed")
        entries.append(entry)
        hashes.append(entry["hash"])
    head = _read_head(path)
    if head.count > len(entries) or hashes[head.count] != head.hash:
        raise _changed(path, "its entries are not those that its head was written for")
    if len(entries) > head.count + 1:
        raise _changed(path, "its head is older than its last entry by more than a crash allows")
    return OldLedger(path, tuple(entries), Head(len(entries), hashes[-1]))


def put_aside(path: Path) -> None:
    """Keep a file that was taken over, and then its head, under other names."""
    for file in (path, path.with_suffix(".head.json")):
        if file.is_file():
            target = file.with_name(file.name + MIGRATED)
            number = 1
            while target.exists():
                number += 1
                target = file.with_name(f"{file.name}{MIGRATED}-{number}")
            file.rename(target)


def _read_head(path: Path) -> Head:
    place = path.with_suffix(".head.json")
    if not place.is_file():
        return Head()
    try:
        return Head(**read_json(place))
    except (ValueError, TypeError) as error:
        raise _changed(path, f"its head {place.name} cannot be read") from error


def _hash(entry: dict[str, Any]) -> str:
    content = {key: value for key, value in entry.items() if key != "hash"}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _changed(path: Path, how: str) -> ConsiliumError:
    return ConsiliumError(
        f"The privacy ledger {path} of an older version cannot be taken over, because it is not "
        f"whole: {how}. Nothing more is released from this data. Put back the file and its head "
        "from a copy, or find out who changed it."
    )
