"""A new database of Prefect's or MLflow's server, as a copy of a template.

Either server makes its tables by tens of migrations, one after the other, which takes many seconds.
They give the same tables every time, so a template with them and without a row of anybody's is kept
in :func:`cache_folder`, made once for each version of the server. A new database of SQLite is a
copy of it.

A template that is not there, cannot be used or could have been written by somebody else is no
error: the server then makes its tables itself.
"""

import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path, locked, make_folders
from federated.provenance import installed
from federated.secrets.home import private_folder, refuse_open

# In seconds; on a busy machine migrations take minutes.
LONGEST = 900
# Half as many as the digits that an unfinished copy's name ends with.
HALF_DIGITS = 4
# How a folder ends that a template is made in.
PART = ".making"


@dataclass(frozen=True)
class Tables:
    """The tables of a server's database, and the server's own command that makes them.

    Attributes:
        package: whose version decides what they are.
        command: the module and arguments that bring an empty database up to date; is given its
            address.
        variables: of its environment that hold the address.
    """

    package: str
    command: Callable[[str], Sequence[str]]
    variables: tuple[str, ...] = ()

    def address(self, database: Path) -> str:
        """The address of a file, as the server is told it."""
        driver = "sqlite+aiosqlite" if self.package == "prefect" else "sqlite"
        return f"{driver}:///{database}"


PREFECT = Tables(
    "prefect",
    lambda _: ("prefect", "server", "database", "upgrade", "--yes"),
    ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL"),
)
# What SQLite has beside a database that is in use, or was when its server was killed.
BESIDE = ("-wal", "-shm", "-journal")
MLFLOW = Tables("mlflow", lambda address: ("mlflow", "db", "upgrade", address))


def cache_folder() -> Path:
    """Where templates are: ``CONSILIUM_CACHE``, or a folder of the user's own cache."""
    if named := os.environ.get("CONSILIUM_CACHE"):
        return Path(named).resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consilium"


def begin_database(tables: Tables, address: str) -> bool:
    """Make a database that is not there as a copy of the template; one that is there stays.

    For a new one the template is made first where there is none, which takes as long as without.

    Args:
        tables: which it is to have.
        address: of the database; one that is no file of SQLite is left to its server.

    Returns:
        Whether it has the newest tables, so that its server need not look for migrations.
    """
    database = _file_of(address)
    if database is None:
        return False
    try:
        if not database.exists():
            if any(database.with_name(database.name + end).exists() for end in BESIDE):
                # Of a database that somebody has deleted. SQLite would write them into the copy;
                # where nothing is in its place it throws them away.
                return False
            _copy(template_of(tables), database)
        elif _unfinished(database):
            # Of a copier that was killed as it was done, or while another one was first.
            with _alone_in(database.parent):
                _remove(_unfinished(database))
        # For one that is there no template is made: that would take longer than to look.
        refuse_open(cache_folder())
        return _revision(database) == _revision(_template(tables))
    except (ConsiliumError, OSError, sqlite3.Error, subprocess.SubprocessError):
        return False


def template_of(tables: Tables) -> Path:
    """The template, which is made where there is none that can be used.

    Raises:
        ConsiliumError: its folder is open to others, or cannot be written to.
        OSError, subprocess.SubprocessError: the server's command fails.
        sqlite3.Error: it has made something else.
    """
    template = _template(tables)
    private_folder(template.parent, template.parent)
    if not _is_whole(template):
        # Of several that want it at once, one makes it.
        with locked(template.parent / f".{tables.package}.lock"):
            if not _is_whole(template):
                _make(tables, template)
    return template


def _template(tables: Tables) -> Path:
    return cache_folder() / f"{tables.package}-{installed(tables.package)}.db"


def _file_of(address: str) -> Path | None:
    """The file of a database of SQLite; ``None`` for one in memory or of another server."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        return None
    if url.get_backend_name() != "sqlite" or url.query or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database)).resolve()


def _is_whole(template: Path) -> bool:
    try:
        with closing(_opened(template)) as connection:
            checked = connection.execute("PRAGMA quick_check").fetchone()
        return checked == ("ok",) and bool(_revision(template))
    except sqlite3.Error:
        return False


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)


def _revision(database: Path) -> str:
    """The newest migration that the tables of a database have been through.

    Raises:
        sqlite3.Error: it has no tables, or is no database.
    """
    with closing(_opened(database)) as connection:
        found = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return ",".join(sorted(str(number) for (number,) in found))


def _make(tables: Tables, template: Path) -> None:
    """Make a template, as the only process that does; what a killed one has left is removed."""
    begun = f".{tables.package}-"
    _sweep(template.parent, begun, template.name)
    with tempfile.TemporaryDirectory(prefix=begun, suffix=PART, dir=template.parent) as folder:
        made = Path(folder) / "made.db"
        address = tables.address(made)
        subprocess.run(  # noqa: S603 - our own commands
            [sys.executable, "-m", *tables.command(address)],
            # Its own home: what it writes beside the tables is nobody's either.
            env=os.environ | dict.fromkeys(tables.variables, address) | {"PREFECT_HOME": folder},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=LONGEST,
            check=True,
        )
        with (
            atomic_path(template, PRIVATE) as temporary,
            closing(sqlite3.connect(made)) as one,
            closing(sqlite3.connect(temporary)) as copy,
        ):
            one.backup(copy)
            # One file, whichever way the server itself keeps its changes.
            copy.execute("PRAGMA journal_mode=DELETE")


def _sweep(cache: Path, begun: str, template: str) -> None:
    """Remove what killed makers of this template have left; whoever calls is the only maker.

    Args:
        cache: the folder of templates.
        begun: how the folders of its makers begin.
        template: the file's name, with which its unfinished copies begin.
    """
    for path in cache.glob(f"{begun}*{PART}"):
        shutil.rmtree(path, ignore_errors=True)
    for path in cache.glob(f".{template}.*.part"):
        path.unlink(missing_ok=True)
    # Of versions before, whose folders had no name of their own; a maker takes no longer.
    for path in cache.glob("tmp????????"):
        with suppress(OSError):
            if (path / "made.db").is_file() and time.time() - path.stat().st_mtime > LONGEST:
                shutil.rmtree(path, ignore_errors=True)


def _copy(template: Path, database: Path) -> None:
    """Put a copy where nothing is; who is there first, as another server, stays.

    One process at a time copies into a folder. Unfinished copies that it finds there are of one
    that was killed, and are removed.
    """
    make_folders(database.parent)
    with _alone_in(database.parent):
        _remove(_unfinished(database))
        temporary = database.with_name(f".{database.name}.{token_hex(HALF_DIGITS)}")
        # With the permissions that a database has which its server makes.
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(template.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                # A link, because it never takes the place of a file, as a rename does.
                os.link(temporary, database)
        finally:
            temporary.unlink(missing_ok=True)


def _unfinished(database: Path) -> list[Path]:
    """Copies that were to become a database, and are not finished."""
    name = re.compile(rf"\.{re.escape(database.name)}\.[0-9a-f]{{{2 * HALF_DIGITS}}}")
    return [path for path in database.parent.iterdir() if name.fullmatch(path.name)]


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Be the only process that copies into a folder, until the block ends or the process is gone.

    The folder itself is what is locked, so that no other file has to lie in it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


if __name__ == "__main__":
    for _tables in (PREFECT, MLFLOW):
        template_of(_tables)
