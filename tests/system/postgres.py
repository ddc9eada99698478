"""A PostgreSQL cluster of a test's own, from Debian's package, that ends with the tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

OWNER, USER, PASSWORD, DATABASE = "postgres", "fl", "p@ss/word", "consortium"
WITHOUT = (
    "NO POSTGRESQL HERE, so nothing shows that Prefect and MLflow work with it: install Debian's "
    "package with `apt-get install postgresql`"
)


@dataclass(frozen=True)
class Cluster:
    """A running cluster, with one database that its user owns."""

    port: int

    @property
    def address(self) -> str:
        return f"postgresql://{USER}:p%40ss%2Fword@127.0.0.1:{self.port}/{DATABASE}"

    def query(self, text: str) -> list[tuple[object, ...]]:
        import psycopg

        where = {"host": "127.0.0.1", "port": self.port, "dbname": DATABASE}
        with psycopg.connect(user=USER, password=PASSWORD, **where) as connection:
            return connection.execute(text).fetchall()


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, the newest ones; ``None`` where there are none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    path = found[-1] if found else Path(named) if named else None
    return path.parent if path else None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster of its own; the test is skipped, loudly, where PostgreSQL is not installed."""
    where = programs()
    if where is None:
        pytest.skip(WITHOUT)
    pytest.importorskip("psycopg", reason="the extra postgres is not installed")
    # Not below pytest's folders, which PostgreSQL's user may not enter.
    folder = Path(tempfile.mkdtemp(prefix="consilium-postgres-"))
    # It refuses to run as root.
    user = OWNER if os.geteuid() == 0 else None
    if user:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)

    def call(*command: str) -> None:
        subprocess.run(
            [str(where / command[0]), *command[1:]], user=user, cwd=folder, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=300,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    data, port = str(folder / "data"), free_port()
    password = folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    try:
        call(
            "initdb", "--no-sync", "-A", "scram-sha-256", "-U", USER,
            f"--pwfile={password}", "-D", data,
        )  # fmt: skip
        options = f"-c fsync=off -c listen_addresses=127.0.0.1 -p {port} -k {folder}"
        call("pg_ctl", "-D", data, "-w", "-t", "120", "-l", f"{folder}/log", "-o", options, "start")
        try:
            _make_database(port)
            yield Cluster(port)
        finally:
            call("pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_database(port: int) -> None:
    import psycopg

    with psycopg.connect(
        user=USER, password=PASSWORD, host="127.0.0.1", port=port, dbname="postgres",
        autocommit=True,
    ) as connection:  # fmt: skip
        connection.execute(f"CREATE DATABASE {DATABASE}")
