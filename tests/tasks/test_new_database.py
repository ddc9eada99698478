"""A new database is a copy of a template, and never takes the place of one that is there."""

import os
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from tasks.new_database import (
    BESIDE,
    LONGEST,
    Tables,
    _copy,
    begin_database,
    cache_folder,
    template_of,
)

# Makes a database of one table, in the time that an import takes, and adds a line to a file.
MAKE = """
import sqlite3
one = sqlite3.connect({made!r})
one.execute("CREATE TABLE alembic_version (version_num)")
one.execute("INSERT INTO alembic_version VALUES ('newest')")
one.execute("PRAGMA journal_mode=WAL")
one.commit()
open({log!r}, "a").write("made\\n")
"""


@pytest.fixture
def made(tmp_path) -> Path:
    return tmp_path / "made"


@pytest.fixture
def tables(tmp_path, made, monkeypatch) -> Tables:
    """Of some package that is installed, whose database is made by `python -m timeit`."""
    monkeypatch.setenv("CONSILIUM_CACHE", str(tmp_path / "cache"))

    def command(address: str) -> list[str]:
        program = MAKE.format(made=address.removeprefix("sqlite:///"), log=str(made))
        return ["timeit", "-n", "1", "-r", "1", program]

    return Tables("pytest", command)


def count(made: Path) -> int:
    return len(made.read_text().splitlines()) if made.exists() else 0


def read(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchall()


def test_a_new_database_is_a_copy_of_a_template_that_is_made_once(tables, made, tmp_path):
    for name in ("one", "two/below"):
        database = tmp_path / name / "new.db"
        assert begin_database(tables, tables.address(database))
        assert read(database) == [("newest",)]
        assert database.stat().st_mode & 0o777 == 0o644 & ~_umask()
        assert [path.name for path in database.parent.iterdir()] == ["new.db"]
    assert count(made) == 1


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.parametrize("end", BESIDE)
def test_nothing_is_put_beside_what_a_killed_server_has_left(tables, made, tmp_path, end):
    """SQLite would write the changes of a database that is deleted into the copy."""
    database = tmp_path / "new.db"
    database.with_name(f"new.db{end}").write_bytes(b"left")
    assert not begin_database(tables, tables.address(database))
    assert not database.exists()


def test_a_database_that_is_there_stays_as_it_is(tables, made, tmp_path):
    database = tmp_path / "old.db"
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('an older one')")
        connection.commit()
    before = database.read_bytes()
    # Its server has to bring it up to date, and nobody waits for a template.
    assert not begin_database(tables, tables.address(database))
    assert count(made) == 0
    template_of(tables)
    assert not begin_database(tables, tables.address(database))
    assert database.read_bytes() == before
    database.write_bytes(b"something else")
    assert not begin_database(tables, tables.address(database))
    assert database.read_bytes() == b"something else"


def test_a_server_that_is_there_first_keeps_its_database(tables, tmp_path):
    database = tmp_path / "new.db"
    database.write_bytes(b"of another server, since it was looked for")
    _copy(template_of(tables), database)
    assert database.read_bytes() == b"of another server, since it was looked for"
    assert {path.name for path in tmp_path.iterdir()} == {"new.db", "cache", "made"}


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:///:memory:", "sqlite://", "sqlite:///file::memory:?cache=shared&uri=true", "x",
        "postgresql+asyncpg://user@host/name", "http://127.0.0.1:5000",
    ],
)  # fmt: skip
def test_what_is_no_file_of_sqlite_is_left_to_its_server(tables, made, address):
    assert not begin_database(tables, address)
    assert count(made) == 0


def test_a_template_of_another_version_or_that_is_damaged_is_made_anew(tables, made, tmp_path):
    template = template_of(tables)
    whole = template.read_bytes()
    for spoiled in (b"", whole[:4096], b"x" * len(whole)):
        template.write_bytes(spoiled)
        assert begin_database(tables, tables.address(tmp_path / f"{len(spoiled)}.db"))
        assert read(template) == [("newest",)]
    assert count(made) == 4
    assert template_of(replace(tables, package="ruff")) != template


def test_a_template_that_others_could_have_written_is_not_used(tables, made, tmp_path):
    before, after = tmp_path / "before.db", tmp_path / "after.db"
    assert begin_database(tables, tables.address(before))
    cache_folder().chmod(0o777)
    assert not begin_database(tables, tables.address(before))
    assert not begin_database(tables, tables.address(after))
    assert not after.exists()


def test_where_the_servers_command_fails_it_makes_its_tables_itself(tables, tmp_path):
    failing = replace(tables, command=lambda address: ["no_such_module"])
    assert not begin_database(failing, failing.address(tmp_path / "new.db"))
    assert not (tmp_path / "new.db").exists()
    # Or says what is wrong: nothing half is left behind.
    assert [path.name for path in cache_folder().iterdir()] == [".pytest.lock"]


def test_what_a_killed_maker_has_left_is_removed_by_the_next_one(tables, tmp_path):
    def dies(address: str) -> list[str]:
        # Kills the process that waits for it, in the middle of making a template.
        return ["timeit", "-n", "1", "-r", "1", "import os; os.kill(os.getppid(), 9)"]

    child = os.fork()
    if not child:
        template_of(replace(tables, command=dies))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    cache = cache_folder()
    (left,) = (path for path in cache.iterdir() if path.is_dir())
    (old,) = (cache / "tmpabcd_123",)
    for path, age in ((old, 2 * LONGEST), (cache / "tmpfresh_12", 0), (cache / "tmpothers12", -1)):
        path.mkdir()
        if age >= 0:
            (path / "made.db").touch()
            os.utime(path, (time.time() - age,) * 2)
    (cache / f".pytest-{version('pytest')}.db.abc.part").touch()
    (cache / ".ruff-of-another.making").mkdir()
    template = template_of(tables)
    assert {path.name for path in cache.iterdir()} == {
        template.name, ".pytest.lock", "tmpfresh_12", "tmpothers12", ".ruff-of-another.making",
    }  # fmt: skip
    assert not left.exists()


def killed_while_it_copies(template: Path, database: Path, at: str) -> None:
    """A process that is killed in the middle of a copy, as it calls a function of ``os``."""
    child = os.fork()
    if not child:
        setattr(os, at, lambda *_: os.kill(os.getpid(), 9))
        _copy(template, database)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9


def test_what_a_killed_copier_has_left_is_removed_by_the_next_server(tables, tmp_path):
    folder = tmp_path / "home"
    database = folder / "new.db"
    killed_while_it_copies(template_of(tables), database, "link")
    (left,) = folder.iterdir()
    kept = {
        folder / name for name in (".new.db.01234abc.part", ".new.db.notes", ".other.db.1a2b3c4d")
    }
    for path in kept:
        path.touch()
    assert begin_database(tables, tables.address(database))
    assert set(folder.iterdir()) == kept | {database}
    # Also where the database has come to be meanwhile.
    left.touch()
    assert begin_database(tables, tables.address(database))
    assert set(folder.iterdir()) == kept | {database}


def test_a_copy_that_is_being_made_is_not_taken_for_one_that_was_left(
    tables, tmp_path, monkeypatch
):
    """Another server that begins the same database meanwhile waits, and finds it there."""
    database, template = tmp_path / "home" / "new.db", template_of(tables)
    begun, found = threading.Event(), []
    link = os.link

    def slowly(source: str, target: str) -> None:
        if not begun.is_set():
            begun.set()
            other.join(0.3)
            found.extend([other.is_alive(), Path(source).exists()])
        link(source, target)

    monkeypatch.setattr(os, "link", slowly)
    other = threading.Thread(target=lambda: (begun.wait(10), _copy(template, database)))
    other.start()
    _copy(template, database)
    other.join(10)
    assert found == [True, True]
    assert [path.name for path in database.parent.iterdir()] == ["new.db"]
    assert read(database) == [("newest",)]
