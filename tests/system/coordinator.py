"""A coordinator's servers that have nothing yet, at one TLS port, for tests that look at them."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from federated.exchange.enrolment import Enrolment
from federated.exchange.https.certificates import Authority, client_context
from federated.exchange.https.office import Office
from federated.exchange.https.server import exchange_app
from federated.exchange.journal import JournalledExchange
from federated.run.coordinator_home import CoordinatorHome
from flows.coordinator_front import Told
from flows.coordinator_logins import coordinator_login, exports
from flows.coordinator_server import Behind, front_server, servers_behind
from flows.databases import databases_of
from flows.login import Login
from flows.status_page import status_of_coordinator
from tests.system import postgres


@dataclass(frozen=True)
class Coordinator:
    """A coordinator's servers that run: where they are, and what lets somebody in."""

    home: CoordinatorHome
    url: str
    authority: Path
    login: Login
    cluster: postgres.Cluster
    behind: Behind
    runs: Path

    def client(self, **options: Any) -> httpx.Client:
        trusted = client_context(self.authority.read_text())
        return httpx.Client(
            base_url=self.url, verify=trusted, trust_env=False, timeout=60, **options
        )

    def certificate(self) -> bytes:
        """The server's certificate (DER), which its authority has issued."""
        parts = urlsplit(self.url)
        trusted = client_context(self.authority.read_text())
        with (
            socket.create_connection((str(parts.hostname), parts.port or 443), timeout=60) as link,
            trusted.wrap_socket(link, server_hostname=parts.hostname) as secured,
        ):
            found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found

    @property
    def owner(self) -> tuple[str, str]:
        return "consilium", self.login.secret

    def environment(self) -> dict[str, str]:
        """What another terminal has after it has read the lines of --env."""
        told = exports(self.home, self.url, self.authority)
        values = dict(line.removeprefix("export ").split("=", 1) for line in told)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_T"))}
        return kept | {k: v.strip("'") for k, v in values.items()}


@contextmanager
def running_coordinator(folder: Path) -> Iterator[Coordinator]:
    """A coordinator that has nothing yet, with its databases in PostgreSQL."""
    home = CoordinatorHome(folder / "home" / "coordinator")
    consortium = home.make_identity().public.fingerprint
    with ExitStack() as stack:
        cluster = stack.enter_context(postgres.cluster())
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONSILIUM_DATABASE", cluster.address)
            databases = databases_of(home)
        assert postgres.PASSWORD not in repr(databases)
        for environment in (databases.prefect, databases.mlflow):
            kept = {name for name, value in environment.items() if postgres.PASSWORD in value}
            assert kept == {"PGPASSWORD"}
        behind = stack.enter_context(servers_behind(home, databases))
        office = Office(
            consortium, Enrolment, JournalledExchange(home.exchange_path), home.audit,
            home.seen_path,
        )  # fmt: skip
        authority, runs = Authority(home.tls_path), folder / "runs"
        certificates = authority.certificates(["localhost", "127.0.0.1"])
        server = front_server(
            home, exchange_app(office), behind, certificates, "127.0.0.1", 0,
            lambda address, why: None,
            Told(lambda: b"consilium_up 1\n", partial(status_of_coordinator, home, runs)),
        )  # fmt: skip
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        url = f"https://localhost:{server.port}"
        yield Coordinator(
            home, url, authority.certificate_path, coordinator_login(home), cluster, behind, runs
        )
        server.should_exit = True
        thread.join(30)
