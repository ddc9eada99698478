"""MLflow's tracking server as an application, as `mlflow server` would set it up."""

import os
from typing import Any

# How people reach the pages, where programs of this machine use another address.
PAGES = "CONSILIUM_MLFLOW_PAGES"
STATIC_PREFIX = "_MLFLOW_STATIC_PREFIX"


def tracking_server(store: str, artifacts: str, below: str = "") -> Any:
    """The ASGI application of a tracking server; it asks for no login by itself.

    MLflow reads from the environment of its process where its store is. (The store is handed in
    because ``tasks.track``, which knows it, imports torch, which a server has no use for.)

    Args:
        store: its database, such as ``sqlite:///…``.
        artifacts: the folder, or address, of the files of runs and models.
        below: the path that all its paths begin with, such as ``/mlflow``; none if empty.
    """
    # Its paths are settled when anything of it is imported.
    os.environ[STATIC_PREFIX] = below
    from mlflow.server.constants import (
        ARTIFACT_ROOT_ENV_VAR,
        ARTIFACTS_DESTINATION_ENV_VAR,
        BACKEND_STORE_URI_ENV_VAR,
        REGISTRY_STORE_URI_ENV_VAR,
        SERVE_ARTIFACTS_ENV_VAR,
    )

    os.environ |= {
        BACKEND_STORE_URI_ENV_VAR: store,
        REGISTRY_STORE_URI_ENV_VAR: store,
        ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        ARTIFACTS_DESTINATION_ENV_VAR: artifacts,
        SERVE_ARTIFACTS_ENV_VAR: "true",
        # Its queues are for evaluating language models, and are eight more processes of 200 MiB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # The owner's shell may have set these for servers of other kinds.
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        "MLFLOW_ENABLE_WORKSPACES": "false",
    }
    for name in ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"):
        os.environ.pop(name, None)
    from mlflow.server.fastapi_app import app

    return app
