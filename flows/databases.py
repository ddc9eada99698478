"""The databases of a coordinator's servers: files in its home, or schemas of one in PostgreSQL.

Its address is ``CONSILIUM_DATABASE``, or stands in the file that ``CONSILIUM_DATABASE_FILE`` names,
so that neither an argument, which everybody on the machine can read, nor a unit file has the
password. The servers are handed it in the environment, apart from the address.
"""

import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from federated.errors import ConsiliumError, unreadable
from federated.run.coordinator_home import CoordinatorHome
from flows.guarded_server import STORE

ADDRESS, ADDRESS_FILE = "CONSILIUM_DATABASE", "CONSILIUM_DATABASE_FILE"
# The two servers have tables of the same names, so each has a schema of its own.
PREFECT, MLFLOW = "prefect", "mlflow"
# The oldest that Prefect 3.8 works with.
LEAST_VERSION = 14
# What an address may say beside where the database is; each driver has other words for it.
OPTIONS = ("host", "port", "sslmode", "sslrootcert")
# What processes get in their environments that have nothing to say to the database.
WITHOUT_ADDRESS = {ADDRESS: "", ADDRESS_FILE: ""}
CONNECT_S = 10
REVISION = re.compile(r"^(down_)?revision(?:: [^=]+)? = (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Databases:
    """What the environments of the two servers get, and what is told of where they keep things."""

    prefect: Mapping[str, str] = field(repr=False)
    mlflow: Mapping[str, str] = field(repr=False)
    told: str


def databases_of(home: CoordinatorHome) -> Databases:
    """The databases that the environment names, or files in the home.

    Raises:
        ConsiliumError: what it names cannot be used; the message has no password.
    """
    address = os.environ.get(ADDRESS, "")
    if named := os.environ.get(ADDRESS_FILE):
        if address:
            raise ConsiliumError(f"Both {ADDRESS} and {ADDRESS_FILE} are set. Unset one of them.")
        try:
            address = Path(named).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise unreadable(Path(named), error) from error
    return in_postgres(address) if address else in_files(home.root)


def in_files(root: Path) -> Databases:
    """Databases of SQLite below a folder."""
    prefect = f"sqlite+aiosqlite:///{root / 'prefect.db'}"
    mlflow = f"sqlite:///{root / 'mlflow.db'}"
    return Databases(_prefect_environment(prefect), {STORE: mlflow}, f"files in {root}")


def in_postgres(address: str) -> Databases:
    """Two schemas of a PostgreSQL database, which are made if they are not there.

    Raises:
        ConsiliumError: it does not answer, is too old, or is one of other versions of the servers.
    """
    url, password = _read(address)
    _prepare(url, password)
    ssl = {"sslmode": "ssl"}
    prefect = url.set(
        drivername="postgresql+asyncpg",
        query={ssl.get(k, k): v for k, v in url.query.items() if k != "sslrootcert"},
    )
    shared = {"PGPASSWORD": password} if password else {}
    if authority := url.query.get("sslrootcert"):
        shared["PGSSLROOTCERT"] = str(authority)
    search = {"PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": PREFECT}
    return Databases(
        shared | search | _prefect_environment(_text(prefect)),
        shared | {STORE: _text(_psycopg(url)), "PGOPTIONS": f"-c search_path={MLFLOW}"},
        f"PostgreSQL at {_text(url)}",
    )


def _prefect_environment(url: str) -> dict[str, str]:
    # The setting has two names, and the owner's shell may have set either.
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    return dict.fromkeys(names, url)


def _read(address: str) -> tuple[URL, str]:
    """An address without its password, and the password.

    Raises:
        ConsiliumError: it is no address of a PostgreSQL database.
    """
    said = f"{ADDRESS} is to be postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        raise ConsiliumError(
            f"{said}, and it is something else. Characters of a password that mean something in an "
            "address, as @ and /, are written as %40 and %2F."
        ) from None
    if url.drivername not in ("postgresql", "postgres") or not url.database:
        raise ConsiliumError(f"{said}, and it is of {url.drivername!r:.40} or names no database.")
    if strange := sorted(set(url.query) - set(OPTIONS)):
        raise ConsiliumError(
            f"{said}, perhaps with {', '.join(OPTIONS)} after a question mark, and it has "
            f"{', '.join(strange)!r:.200} there."
        )
    # `URL.set` would leave the password as it is.
    bare = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return bare, str(url.password or "")


def _text(url: URL) -> str:
    """An address without password as text."""
    return url.render_as_string(hide_password=True)


def _psycopg(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")


def _prepare(url: URL, password: str) -> None:
    """Make the schemas in a database that both servers can work with.

    Raises:
        ConsiliumError: they cannot.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ConsiliumError("PostgreSQL needs the extra: install consilium[postgres].") from error
    given: dict[str, Any] = {k: v for k, v in url.query.items() if k in OPTIONS}
    given |= {"host": url.host or given.get("host"), "port": url.port or given.get("port")}
    try:
        connection = psycopg.connect(
            user=url.username, dbname=url.database, password=password or None,
            connect_timeout=CONNECT_S, autocommit=True, **given,
        )  # fmt: skip
    except (psycopg.Error, OSError) as error:
        raise _unusable(url, password, error, "Start it, or mend the address.") from error
    with closing(connection):
        version = connection.info.server_version // 10000
        if version < LEAST_VERSION:
            raise ConsiliumError(
                f"The database {_text(url)} is of PostgreSQL {version}, and Prefect needs "
                f"{LEAST_VERSION} or newer. Give {ADDRESS} of a newer one."
            )
        try:
            for schema in (PREFECT, MLFLOW):
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            found = {name: _revision(connection, name) for name in (PREFECT, MLFLOW)}
        except psycopg.Error as error:
            remedy = (
                f"Have its administrator call CREATE SCHEMA {PREFECT} AUTHORIZATION {url.username} "
                f"and CREATE SCHEMA {MLFLOW} AUTHORIZATION {url.username} there."
            )
            raise _unusable(url, password, error, remedy) from error
    _refuse_other_versions(url, found)


def _unusable(url: URL, password: str, error: Exception, remedy: str) -> ConsiliumError:
    said = " ".join(str(error).split())
    if password:
        said = said.replace(password, "***")
    return ConsiliumError(f"The database {_text(url)} cannot be used ({said:.400}). {remedy}")


def _revision(connection: Any, schema: str) -> str | None:
    """The revision of a server's tables; ``None`` where there are none yet."""
    there = connection.execute("SELECT to_regclass(%s)", (f"{schema}.alembic_version",)).fetchone()
    if there[0] is None:
        return None
    row = connection.execute(f"SELECT version_num FROM {schema}.alembic_version").fetchone()  # noqa: S608 - one of two names
    return str(row[0]) if row else None


def _refuse_other_versions(url: URL, found: Mapping[str, str | None]) -> None:
    """Refuse tables that the installed servers cannot use.

    Prefect's server brings older ones up to date when it starts; MLflow's does not.

    Raises:
        ConsiliumError: there are some.
    """
    prefect, _ = _revisions("prefect.server.database", "_migrations/versions/postgresql")
    mlflow, newest = _revisions("mlflow", "store/db_migrations/versions")
    for name, known in ((PREFECT, prefect), (MLFLOW, mlflow)):
        if found[name] is not None and found[name] not in known:
            raise ConsiliumError(
                f"The tables in the schema {name} of {_text(url)} are of another version of "
                f"{name} (revision {found[name]!r:.40}) than is installed here, most likely a "
                f"newer one. Install that version, or give {ADDRESS} of another database."
            )
    if found[MLFLOW] is not None and found[MLFLOW] not in newest:
        raise ConsiliumError(
            f"The tables in the schema {MLFLOW} of {_text(url)} are of an older version of MLflow. "
            "Make a backup, then bring them up to date, with the password in PGPASSWORD: "
            f"PGOPTIONS='-c search_path={MLFLOW}' mlflow db upgrade '{_text(_psycopg(url))}'"
        )


def _revisions(package: str, folder: str) -> tuple[set[str], set[str]]:
    """All revisions of a package's tables, and those that no other one follows.

    They are read from its files: importing them takes seconds.
    """
    spec = find_spec(package)
    known: set[str] = set()
    before: set[str] = set()
    for place in spec.submodule_search_locations or () if spec else ():
        for path in (Path(place) / folder).glob("*.py"):
            for down, value in REVISION.findall(path.read_text(encoding="utf-8")):
                (before if down else known).update(re.findall(r"[\"']([^\"']+)[\"']", value))
    return known, known - before
