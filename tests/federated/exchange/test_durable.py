"""What is synced to the disk: what has to be there after a power cut, and nothing else."""

from pathlib import Path

import pytest

from federated import files
from federated.exchange.folder import EVERYONE, FolderExchange
from federated.exchange.journal import JournalledExchange
from federated.exchange.message import sign
from federated.run.update_files import write_packed
from tests.federated.exchange.parties import SITES, TOPIC, identity

OF_A_ROUND = ("payload", "evaluation", "evaluation.payload", "joining")
KEPT = ("state", "run-plan", "evaluation-plan", "own-model", "sealed-key")
REPORTS = ("report-protect", "evaluation.report-answer")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The files and folders that are synced."""
    found: list[int] = []
    monkeypatch.setattr(files.os, "fsync", found.append)
    return found


def is_synced(exchange: FolderExchange, kind: str, synced: list[int]) -> bool:
    synced.clear()
    exchange.post(sign(identity(SITES[0]), TOPIC, kind, EVERYONE, kind.encode()))
    return bool(synced)


def test_on_one_machine_what_a_round_that_breaks_off_makes_anew_is_not_synced(
    tmp_path: Path, synced: list[int]
) -> None:
    exchange = FolderExchange(tmp_path)
    for kind in (*OF_A_ROUND, *REPORTS):
        assert not is_synced(exchange, kind, synced), kind
    for kind in KEPT:
        assert is_synced(exchange, kind, synced), kind


def test_a_site_of_a_consortium_syncs_all_that_it_has_sent_but_reports(
    tmp_path: Path, synced: list[int]
) -> None:
    exchange = JournalledExchange(tmp_path)
    for kind in (*OF_A_ROUND, *KEPT):
        assert is_synced(exchange, kind, synced), kind


@pytest.mark.parametrize("durable", [True, False])
def test_bytes_are_synced_where_they_are_to_be_durable(
    tmp_path: Path, synced: list[int], durable: bool
) -> None:
    write_packed(tmp_path / "x", b"content", durable=durable)
    assert (tmp_path / "x").read_bytes() == b"content"
    assert bool(synced) is durable
