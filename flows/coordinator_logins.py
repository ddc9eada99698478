"""The logins of a coordinator's servers, and what another terminal needs to be let in by them."""

from pathlib import Path
from shlex import quote

from federated.run.coordinator_home import CoordinatorHome
from federated.secrets.home import private_folder
from flows.login import USER, Login, kept_login

# Below which the two are at the coordinator's one port.
PREFECT, MLFLOW = "/prefect", "/mlflow"


def coordinator_login(home: CoordinatorHome) -> Login:
    """The login of the coordinator's Prefect and MLflow, which stays the same over all starts.

    Raises:
        ConsiliumError: others can open the home, or the file holds something else.
    """
    return kept_login(private_folder(home.root, home.root) / "login")


def scraper_login(home: CoordinatorHome) -> Login:
    """The login of whoever reads the metrics, which opens nothing else.

    Raises:
        ConsiliumError: others can open the home, or the file holds something else.
    """
    return kept_login(private_folder(home.root, home.root) / "metrics.token")


def exports(home: CoordinatorHome, url: str, authority: Path | None) -> list[str]:
    """Lines for a shell, after which `prefect` and MLflow's client work with the coordinator.

    Args:
        home: the coordinator's.
        url: its address, as ``https://fl.example.org:8443``.
        authority: the file of the certificate that signs the coordinator's; ``None`` for one that
            machines trust anyway. On another machine it is to be copied there.

    Raises:
        ConsiliumError: others can open the home.
    """
    login, base = coordinator_login(home), url.rstrip("/")
    values = {
        "PREFECT_API_URL": f"{base}{PREFECT}/api",
        "PREFECT_API_AUTH_STRING": login.auth_string,
        "MLFLOW_TRACKING_URI": f"{base}{MLFLOW}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": login.secret,
    }
    if authority is not None:
        values["PREFECT_API_SSL_CERT_FILE"] = str(authority.resolve())
        values["MLFLOW_TRACKING_SERVER_CERT_PATH"] = str(authority.resolve())
    return [f"export {name}={quote(value)}" for name, value in values.items()]
