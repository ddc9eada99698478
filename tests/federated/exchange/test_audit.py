"""The audit log where the disk is full: nothing that was written whole is lost."""

import os

import pytest

from federated.exchange.audit import AuditLog


def test_a_line_after_one_that_a_full_disk_has_cut_is_whole(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    log.add("one")
    with log.path.open("a") as file:
        file.write('{"time": "2026')
    log.add("two")
    assert [line["event"] for line in log.lines()] == ["one", "two"]


def test_a_disk_without_room_for_a_line_is_an_error(tmp_path, monkeypatch):
    log = AuditLog(tmp_path / "audit.jsonl")
    write = os.write
    monkeypatch.setattr("federated.files.os.write", lambda handle, text: write(handle, text[:5]))
    with pytest.raises(OSError, match="No space left"):
        log.add("one")
