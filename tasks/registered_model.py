"""The weights of a model in MLflow's registry, as a file, and whose they are."""

import re
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from federated.errors import ConsiliumError
from tasks.register import SITE_TAG, fluent_api
from tasks.track import UNUSABLE, client, tracking_uri, unusable

NAME = re.compile(r"(?P<name>[^@/]+(/[^@/]+)*?)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


def registered_weights(model: str) -> tuple[Path, str | None]:
    """The file of ``NAME@ALIAS`` or ``NAME/VERSION``; the path itself where ``model`` is a file.

    The second result is the site, where the version is that of one site's own model.

    Raises:
        ConsiliumError: there is no such file or registered model, or MLflow cannot be used.
    """
    if Path(model).is_file():
        return Path(model), None
    match = NAME.fullmatch(model)
    if not match:
        raise ConsiliumError(
            f"The model {model!r} is no file, and not of the form NAME@ALIAS or NAME/VERSION, for "
            "example hippocampus@champion."
        )
    try:
        registry = client()
    except UNUSABLE as error:
        raise unusable(error) from error
    try:
        if match["alias"]:
            version = registry.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = registry.get_model_version(match["name"], match["version"])
        with fluent_api(tracking_uri()):
            folder = Path(mlflow.artifacts.download_artifacts(f"models:/{model}"))
    except (MlflowException, OSError) as error:
        known = ", ".join(sorted(found.name for found in registry.search_registered_models()))
        raise ConsiliumError(
            f"There is no model {model!r} in the registry at {tracking_uri()}. Registered: "
            f"{known or 'none'}. A run registers its model: `consilium run NAME`."
        ) from error
    (path,) = folder.glob("artifacts/*.safetensors")
    return path, version.tags.get(SITE_TAG)
