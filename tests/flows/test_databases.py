"""Where the coordinator's servers keep what they know."""

import pytest

from federated.errors import ConsiliumError
from federated.run.coordinator_home import CoordinatorHome
from flows.databases import ADDRESS, ADDRESS_FILE, databases_of, in_postgres
from tests.ports import free_port

HOME = CoordinatorHome.default


def test_without_an_address_they_are_files_in_the_home(consilium_home):
    found = databases_of(HOME())
    assert set(found.prefect.values()) == {
        f"sqlite+aiosqlite:///{consilium_home}/coordinator/prefect.db"
    }
    assert list(found.mlflow.values()) == [f"sqlite:///{consilium_home}/coordinator/mlflow.db"]


def test_a_database_that_does_not_answer_is_named_without_its_password():
    pytest.importorskip("psycopg")
    address = f"postgresql://fl:a-secret@127.0.0.1:{free_port()}/fl"
    with pytest.raises(ConsiliumError, match=r"127\.0\.0\.1.*cannot be used .*refused") as caught:
        in_postgres(address)
    assert "a-secret" not in str(caught.value)
    assert "a-secret" not in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "address",
    [
        "mysql://fl:a-secret@db/fl",
        "postgresql://fl:a-secret@db",
        "postgresql://fl:a-secret@db:port/fl",
        "postgresql://fl:a-secret@db/fl?options=-cx",
        "a-secret",
    ],
)
def test_what_is_no_address_is_refused_without_its_password(address, monkeypatch):
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(ConsiliumError, match="is to be postgresql://") as caught:
        databases_of(HOME())
    assert "a-secret" not in str(caught.value)


def test_an_address_may_stand_in_a_file_and_not_in_both(tmp_path, monkeypatch):
    file = tmp_path / "address"
    file.write_text("mysql://db/fl\n")
    monkeypatch.setenv(ADDRESS_FILE, str(file))
    with pytest.raises(ConsiliumError, match="it is of 'mysql'"):
        databases_of(HOME())
    monkeypatch.setenv(ADDRESS, "postgresql://db/fl")
    with pytest.raises(ConsiliumError, match="Unset one of them"):
        databases_of(HOME())


@pytest.mark.parametrize(("version", "said"), [(130010, "is of PostgreSQL 13"), (150000, "")])
def test_an_old_server_and_tables_of_other_versions_are_refused(monkeypatch, version, said):
    """By what a server tells of itself; tests/system asks a real one."""
    psycopg = pytest.importorskip("psycopg")

    class Told:
        """As much of a connection as is asked for, of tables that a newer MLflow has made."""

        class info:  # noqa: N801 - psycopg's name
            server_version = version

        def execute(self, query, values=None):
            self.asked = str(values or query)
            return self

        def fetchone(self):
            return ("a9b8c7d6e5f4",) if "mlflow" in self.asked else (None,)

        def close(self):
            pass

    monkeypatch.setattr(psycopg, "connect", lambda **given: Told())
    said = said or "schema mlflow of .* are of another version of mlflow"
    with pytest.raises(ConsiliumError, match=said):
        in_postgres("postgresql://fl:a-secret@db/fl")
