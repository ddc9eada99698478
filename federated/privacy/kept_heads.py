"""Heads of ledgers that were kept, so that a ledger put back to an older copy is noticed.

A site keeps them in its home, in another folder than the ledgers, and every run keeps them in its
folder and in MLflow. A ledger whose entry of that number has another hash, or that has fewer
entries, is not the one that was seen.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from federated.files import read_json
from federated.privacy.hash_chain import Head
from federated.secrets.home import consilium_home, private_folder


@dataclass(frozen=True)
class KeptHead:
    """A head that a run has seen, and the file in which it is on record."""

    head: Head
    run: str
    place: Path


def keep_head(ledger: Path, head: Head, run: str) -> None:
    """Keep a head in the site's home, synced to the disk, unless it is there already.

    Args:
        ledger: the file of the ledger.
        head: its head.
        run: the id of the run that has seen it.
    """
    if any(kept.head == head for kept in home_heads(ledger)):
        return
    path = _home_path(ledger)
    private_folder(path.parent)
    # The line before may have been cut off by a crash.
    content = {"ledger": str(ledger), "count": head.count, "hash": head.hash, "run": run}
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, f"\n{json.dumps(content)}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def home_heads(ledger: Path) -> list[KeptHead]:
    """The heads of a ledger file that are kept in the site's home."""
    path = _home_path(ledger)
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        kept = _kept(line, path)
        if kept and kept[0] == str(ledger):
            found.append(kept[1])
    return found


def by_number(heads: Iterable[Head]) -> dict[int, str]:
    """The hash that the entry of each number has; where heads contradict each other, none fits."""
    found: dict[int, str] = {}
    for head in heads:
        known = found.setdefault(head.count, head.hash)
        if known != head.hash:
            found[head.count] = "heads that contradict each other"
    return found


def run_heads(runs: Path, holder: str) -> Iterator[KeptHead]:
    """The heads of a holder's ledger that the runs below ``runs`` have kept."""
    for path in sorted(runs.rglob("ledger/*.json")):
        try:
            value: Any = read_json(path)
            if value["holder"] != holder:
                continue
            head = Head(int(value["head"]["count"]), str(value["head"]["hash"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # of an older version, or no such file
        yield KeptHead(head, path.parents[1].name, path)


def _home_path(ledger: Path) -> Path:
    return consilium_home() / "heads" / ledger.name


def _kept(line: str, path: Path) -> tuple[str, KeptHead] | None:
    try:
        value = json.loads(line)
        head = Head(int(value["count"]), str(value["hash"]))
        return str(value["ledger"]), KeptHead(head, str(value["run"]), path)
    except (ValueError, KeyError, TypeError):
        return None
