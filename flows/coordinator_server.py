"""The servers of a coordinator: started together, reached at one port, ended together.

The exchange answers in the process that calls :func:`serve_coordinator`. Prefect's and MLflow's
servers, and what begins runs that somebody asks Prefect for, are processes of their own which end
with it.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings
from starlette.types import ASGIApp

from federated.configuration.params_file import experiment_names
from federated.errors import ConsiliumError
from federated.exchange.https.certificates import Certificates
from federated.exchange.https.listening import ConnectionLimits, TlsServer, tls_server
from federated.files import make_folders
from federated.run.coordinator_home import CoordinatorHome
from flows.certified import certified_address, certified_names
from flows.coordinator_front import CoordinatorFront, Told
from flows.coordinator_logins import MLFLOW, PREFECT, coordinator_login, scraper_login
from flows.databases import WITHOUT_ADDRESS, Databases
from flows.forwarding import Forwarder
from flows.guarded_server import ARTIFACTS, BELOW
from flows.login import USER, Login
from flows.ports import HOST, listen, port_of
from flows.server import (
    STARTUP_TIMEOUT_S,
    WITH_DEPLOYMENTS,
    client_settings,
    give_way,
    running,
    running_guarded,
    wait_until_healthy,
)
from tasks.mlflow_server import PAGES

# How many deployments Prefect lists at once.
MOST_LISTED = 200
# The module that begins runs of a consortium.
DEPLOYMENTS = "flows.coordinator_deployments"


@dataclass(frozen=True)
class Behind:
    """The loopback ports of Prefect's and MLflow's servers, and the login that both want."""

    prefect: int
    mlflow: int
    login: Login

    def environment(self) -> dict[str, str]:
        """What a process of this machine has to be given that works with both."""
        return {
            "PREFECT_API_URL": f"http://{HOST}:{self.prefect}{PREFECT}/api",
            "PREFECT_API_AUTH_STRING": self.login.auth_string,
            "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true",
            "MLFLOW_TRACKING_URI": f"http://{HOST}:{self.mlflow}{MLFLOW}",
            "MLFLOW_TRACKING_USERNAME": USER,
            "MLFLOW_TRACKING_PASSWORD": self.login.secret,
            # For links: below the address that people have opened.
            PAGES: MLFLOW,
        }


@contextmanager
def servers_behind(home: CoordinatorHome, databases: Databases) -> Iterator[Behind]:
    """Prefect's and MLflow's servers at loopback ports, until the block ends.

    Raises:
        ConsiliumError: one does not come up, or others can open the home.
    """
    login = coordinator_login(home)
    pages, files = home.root / "prefect-pages", home.root / "mlflow-artifacts"
    make_folders(files, private=True)
    handed = {
        "prefect": {
            **databases.prefect,
            **WITH_DEPLOYMENTS,
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(pages),
        },
        "mlflow": {**databases.mlflow, ARTIFACTS: files.as_uri()},
    }
    below = {"prefect": PREFECT, "mlflow": MLFLOW}
    with ExitStack() as stack:
        listening = {name: stack.enter_context(listen()) for name in handed}
        behind = Behind(port_of(listening["prefect"]), port_of(listening["mlflow"]), login)
        started = {}
        for name, environment in handed.items():
            whole = WITHOUT_ADDRESS | environment | {BELOW: below[name]}
            server = running_guarded(name, listening[name], login, whole, _log(home, name))
            started[name] = stack.enter_context(server)
        mlflow = f"http://{HOST}:{behind.mlflow}{MLFLOW}/health"
        wait_until_healthy(started["mlflow"], mlflow, "MLflow", _log(home, "mlflow"))
        prefect = f"http://{HOST}:{behind.prefect}{PREFECT}/api/health"
        wait_until_healthy(started["prefect"], prefect, "Prefect", _log(home, "prefect"))
        # A round waits for what it asks MLflow, and not for what Prefect writes down.
        give_way(started["prefect"])
        yield behind


@contextmanager
def serving_deployments(
    home: CoordinatorHome, behind: Behind, params: Path, runs: Path
) -> Iterator[None]:
    """A deployment fl-round/NAME for every experiment, whose runs are of the consortium's sites.

    Runs that have been begun end with the block.
    """
    command = [DEPLOYMENTS, str(params.resolve()), str(runs.resolve())]
    environment = WITHOUT_ADDRESS | behind.environment()
    with running(command, environment, log=_log(home, "deployments")) as process:
        _wait_until_deployed(behind, process, len(experiment_names(params)))
        yield


def _wait_until_deployed(
    behind: Behind, process: "subprocess.Popen[bytes]", experiments: int
) -> None:
    """Wait until Prefect knows a deployment of every experiment.

    Raises:
        ConsiliumError: the process that serves them ended, or two minutes passed.
    """
    api = behind.environment()["PREFECT_API_URL"]
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    with (
        temporary_settings(updates=client_settings(api, behind.login)),
        get_client(sync_client=True) as prefect,
    ):
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(httpx.HTTPError):
                if len(prefect.read_deployments(limit=MOST_LISTED)) >= min(
                    experiments, MOST_LISTED
                ):
                    return
            time.sleep(0.2)
    raise ConsiliumError(
        "Prefect was not told of the experiments' deployments. The log deployments.log in logs/ of "
        "the coordinator's home says why; most often params.yaml cannot be used."
    )


def _log(home: CoordinatorHome, name: str) -> Path:
    """The file of what a process of the coordinator says."""
    make_folders(home.root / "logs", private=True)
    return home.root / "logs" / f"{name}.log"


def front_server(
    home: CoordinatorHome,
    exchange: ASGIApp,
    behind: Behind,
    certificates: Certificates,
    host: str,
    port: int,
    refused: Callable[[str, str], None],
    told: Told,
) -> TlsServer:
    """The server at the coordinator's one port; it listens, and answers once its ``run`` is called.

    Args:
        home: the coordinator's.
        exchange: what answers sites.
        behind: Prefect's and MLflow's servers.
        certificates: what it shows; it is called by the names in them alone.
        host: the address to listen on.
        port: the port; any free one if 0.
        refused: is told the address and why, where a connection is refused or broken off.
        told: gives the numbers for Prometheus, and the page on sites and runs.

    Raises:
        ConsiliumError: nobody can listen there, or a certificate cannot be used.
    """
    names = certified_names(certificates.chain)
    front = CoordinatorFront(
        exchange,
        certified_address(names, f"https://{names[0]}"),
        behind.login,
        scraper_login(home),
        Forwarder(behind.prefect),
        Forwarder(behind.mlflow),
        told,
    )
    return tls_server(front, host, port, certificates, refused, ConnectionLimits(), websockets=True)
