"""The weights of a model in MLflow's registry, as a file."""

import re
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from federated.errors import ConsiliumError
from tasks.register import fluent_api
from tasks.track import client, tracking_uri

NAME = re.compile(r"(?P<name>[^@/]+(/[^@/]+)*?)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


def registered_weights(model: str) -> Path:
    """The file of ``NAME@ALIAS`` or ``NAME/VERSION``; the path itself where ``model`` is a file.

    Raises:
        ConsiliumError: there is no such file or registered model.
    """
    if Path(model).is_file():
        return Path(model)
    match = NAME.fullmatch(model)
    if not match:
        raise ConsiliumError(
            f"The model {model!r} is no file, and not of the form NAME@ALIAS or NAME/VERSION, for "
            "example hippocampus@champion."
        )
    try:
        registry = client()
        if match["alias"]:
            registry.get_model_version_by_alias(match["name"], match["alias"])
        else:
            registry.get_model_version(match["name"], match["version"])
        with fluent_api(tracking_uri()):
            folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model}"))
    except (MlflowException, OSError) as error:
        known = ", ".join(sorted(found.name for found in registry.search_registered_models()))
        raise ConsiliumError(
            f"There is no model {model!r} in the registry at {tracking_uri()}. Registered: "
            f"{known or 'none'}. A run registers its model: `consilium run NAME`."
        ) from error
    (path,) = folder.glob("artifacts/*.safetensors")
    return path
