"""The weights of a model in MLflow's registry, as a file, and whose they are."""

import re
from dataclasses import dataclass
from pathlib import Path

from federated.errors import ConsiliumError
from tasks.register import SITE_TAG, fluent_api
from tasks.track import client, tracking_uri, unusable, unusable_errors

NAME = re.compile(r"(?P<name>[^@/]+(/[^@/]+)*?)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class RegisteredWeights:
    """A model's file, and the site where it is one site's own.

    ``name`` and ``version`` are those in the registry, ``aliases`` those of the version, and
    ``mlflow_run_id`` is the run that made it; a file that is in no registry has none of these.
    """

    path: Path
    site: str | None = None
    name: str | None = None
    version: str | None = None
    aliases: tuple[str, ...] = ()
    mlflow_run_id: str | None = None


def registered_weights(model: str) -> RegisteredWeights:
    """The weights of ``NAME@ALIAS``, ``NAME@VERSION`` or ``NAME/VERSION``, or of a file.

    Raises:
        ConsiliumError: there is no such file or registered model, or MLflow cannot be used.
    """
    if Path(model).is_file():
        return RegisteredWeights(Path(model))
    match = NAME.fullmatch(model)
    if not match:
        raise ConsiliumError(
            f"The model {model!r} is no file, and not of the form NAME@ALIAS, NAME@VERSION or "
            "NAME/VERSION, for example hippocampus@champion."
        )
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        registry = client()
    except unusable_errors() as error:
        raise unusable(error) from error
    try:
        number = match["version"] or (match["alias"] if match["alias"].isdecimal() else None)
        if number:
            version = registry.get_model_version(match["name"], number)
        else:
            version = registry.get_model_version_by_alias(match["name"], match["alias"])
        exact = f"models:/{match['name']}/{version.version}"
        with fluent_api(tracking_uri()):
            folder = Path(mlflow.artifacts.download_artifacts(exact))
    except (MlflowException, OSError) as error:
        known = ", ".join(sorted(found.name for found in registry.search_registered_models()))
        raise ConsiliumError(
            f"There is no model {model!r} in the registry at {tracking_uri()}. Registered: "
            f"{known or 'none'}. A run registers its model: `consilium run NAME`."
        ) from error
    files = list(folder.glob("artifacts/*.safetensors"))
    if len(files) != 1:
        raise ConsiliumError(
            f"Of {model} MLflow at {tracking_uri()} has {len(files)} files with weights, and a run "
            "registers one: its artifacts were changed. Put them back, or run the experiment again."
        )
    (path,) = files
    return RegisteredWeights(
        path,
        version.tags.get(SITE_TAG),
        match["name"],
        str(version.version),
        tuple(sorted(version.aliases)),
        version.run_id,
    )
