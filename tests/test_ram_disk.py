"""Where the tests' temporary files lie."""

import os
import tempfile

import pytest

from tests import ram_disk


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A memory with room, and a disk that is used so far; nothing of it outlives the test."""
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    memory.mkdir()
    monkeypatch.setattr(ram_disk, "IN_MEMORY", memory)
    monkeypatch.setattr(ram_disk, "ROOM", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    # Set first, so that what the test makes of it is undone.
    monkeypatch.setenv("TMPDIR", str(disk))
    monkeypatch.delenv("TMPDIR")
    return str(memory), str(disk)


def test_with_room_they_lie_in_memory_for_this_process_and_those_it_starts(places):
    memory, _ = places
    ram_disk.use_ram_disk()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == memory


def test_without_room_they_stay_on_the_disk(places, monkeypatch):
    _, disk = places
    monkeypatch.setattr(ram_disk, "ROOM", 2**80)
    ram_disk.use_ram_disk()
    assert tempfile.gettempdir() == disk
    assert "TMPDIR" not in os.environ


def test_without_such_a_memory_they_stay_on_the_disk(places, monkeypatch, tmp_path):
    _, disk = places
    monkeypatch.setattr(ram_disk, "IN_MEMORY", tmp_path / "missing")
    ram_disk.use_ram_disk()
    assert tempfile.gettempdir() == disk


def test_they_lie_where_a_person_wants_them(places, monkeypatch):
    _, disk = places
    monkeypatch.setenv("TMPDIR", disk)
    ram_disk.use_ram_disk()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == disk
