"""What a run needs of this machine, found missing before anything is started or waited for."""

import os
from pathlib import Path

from prefect.settings import get_current_settings

from federated.files import require_writable
from federated.secrets.home import consilium_home
from tasks.reachable import require_answer, require_mlflow


def require_servers_and_folders(configured: str | None, *, tracked: bool = True) -> None:
    """Refuse servers that do not answer and folders that cannot be written to.

    Args:
        configured: the Prefect API that is used; ``None`` for a temporary server of this process.
        tracked: whether MLflow is used.

    Raises:
        ConsiliumError: there is one; the message names the first of them, by its variable.
    """
    require_writable(consilium_home(), "CONSILIUM_HOME, by default ~/.consilium")
    if tracked:
        require_mlflow()
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            require_writable(Path("mlruns"), "of MLflow, below the working folder")
    if configured:
        otherwise = "have a temporary server started"
        trusted = get_current_settings().api.ssl_cert_file
        require_answer(
            configured, "/health", "PREFECT_API_URL", otherwise, must_know=True, authority=trusted
        )
    else:
        # Where the temporary server keeps its database.
        require_writable(get_current_settings().home, "PREFECT_HOME, by default ~/.prefect")
