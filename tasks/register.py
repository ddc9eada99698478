"""register: the final model as a version in MLflow's registry, and the alias ``champion``."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.selection import improves
from federated.weights.model_file import read_header
from tasks.track import client, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

ALIAS = "champion"
# The tag of a version that says whose model it is, where its file holds those of several sites.
SITE_TAG = "site"
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Registration:
    """The new version, whether it is the champion now, and why."""

    version: int
    champion: bool
    reason: str


@task(name="register", task_run_name="register {name}", cache_policy=NO_CACHE)
def register(
    name: str, model_path: Path, mlflow_run_id: str, metric: str, value: float | None
) -> Registration:
    """Log the model with its signature, register it, and move the alias if it improves.

    The reason for moving the alias or not is a tag of the version.

    Args:
        name: the registered model's name.
        model_path: the file of the model.
        mlflow_run_id: the run that it is logged in.
        metric: the metric by which it is compared with the champion, always one of the validation
            split.
        value: its value of that metric; ``None`` where there is none.
    """
    _log_model(name, model_path, mlflow_run_id)
    found = client().search_model_versions(f"name='{name}' and run_id='{mlflow_run_id}'")
    version = max(found, key=lambda v: int(v.version))
    return _compare(version, metric, value)


@task(name="register-sites", task_run_name="register sites of {name}", cache_policy=NO_CACHE)
def register_sites(
    name: str, version: int, metric: str, values: Mapping[str, float | None]
) -> dict[str, Registration]:
    """Register every site's own model of a personalised ``version``, as ``NAME.SITE``.

    The files are those of the version; the tag ``site`` says whose model is meant. ``values`` are
    the sites' own, with which each site's champion is compared.
    """
    registry = client()
    common = registry.get_model_version(name, str(version))
    assert common.source is not None
    registered = {}
    for site, value in values.items():
        own = site_model_name(name, site)
        if not registry.search_registered_models(f"name='{own}'"):
            registry.create_registered_model(own)
        made = registry.create_model_version(
            own, common.source, common.run_id, tags={SITE_TAG: site}, model_id=common.model_id
        )
        registered[site] = _compare(made, metric, value)
    return registered


def site_model_name(name: str, site: str) -> str:
    """The name of a site's own model; MLflow allows no slash in one."""
    return f"{name}.{site}"


def _compare(version: "ModelVersion", metric: str, value: float | None) -> Registration:
    """Tag a new version with its value, and move the alias if it improves."""
    registry, name, number = client(), version.name, str(version.version)
    champion, reason = judge(metric, value, *_champion(name, metric))
    registry.set_model_version_tag(name, number, "selection_metric", metric)
    registry.set_model_version_tag(name, number, "selection_value", str(value))
    registry.set_model_version_tag(name, number, "champion_reason", reason)
    if champion:
        registry.set_registered_model_alias(name, ALIAS, number)
    return Registration(int(number), champion, reason)


def judge(
    metric: str, value: float | None, best: float | None, version: str | None
) -> tuple[bool, str]:
    """Whether a new version becomes champion, and why.

    Args:
        metric: by which models are compared.
        value: the new version's; ``None`` where there is none.
        best: the present champion's value; ``None`` where there is none.
        version: the present champion's number; ``None`` where there is no champion.
    """
    if value is None:
        return False, f"not champion: {metric} could not be computed"
    if version is None:
        return True, f"champion: the first version, with {metric} {value:.4f}"
    if best is None:
        return True, f"champion: version {version} has no {metric}, this one has {value:.4f}"
    better = improves(metric, value, best)
    verb = "improves on" if better else "does not improve on"
    prefix = "champion" if better else "not champion"
    return better, f"{prefix}: {metric} {value:.4f} {verb} {best:.4f} of version {version}"


def _champion(name: str, metric: str) -> tuple[float | None, str | None]:
    """The present champion's value of ``metric`` and its version."""
    from mlflow.exceptions import MlflowException

    try:
        version: ModelVersion = client().get_model_version_by_alias(name, ALIAS)
    except MlflowException:
        return None, None
    text = version.tags.get("selection_value", "None")
    same = version.tags.get("selection_metric") == metric and text != "None"
    return (float(text) if same else None), str(version.version)


@contextmanager
def fluent_api(uri: str) -> Iterator[None]:
    """Point MLflow's module-level functions, which alone log models, to a tracking server.

    They also write the address into the environment, where it would pass for the user's choice; it
    is taken away again.
    """
    import mlflow

    # Of hundreds of files, which no line break parts from what a command says.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)


def _log_model(name: str, model_path: Path, mlflow_run_id: str) -> None:
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    header = read_header(model_path)
    # Images of a segmentation set are of any size and any scale.
    spatial = (header.size or -1,) * header.dims
    voxels = () if header.size else spatial
    values = np.dtype(np.uint8 if header.size else np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(values, (-1, header.channels, *spatial))]),
        outputs=Schema([TensorSpec(np.dtype(np.float64), (-1, header.classes, *voxels))]),
        params=ParamSchema([ParamSpec("site", DataType.string, "")]),
    )
    with (
        fluent_api(tracking_uri()),
        mlflow.start_run(run_id=mlflow_run_id),
        warnings.catch_warnings(),
    ):
        # The signature is given by hand; an example would load the model once more.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PROJECT / "tasks" / "served_model.py"),
            artifacts={"weights": str(model_path)},
            signature=signature,
            code_paths=[str(PROJECT / "federated"), str(PROJECT / "models")],
            # Given, or MLflow would install nothing but find out by loading the model elsewhere.
            pip_requirements=[
                "torch",
                "numpy",
                "safetensors",
                "pydantic",
                "scikit-learn",
                "torchio",
                "monai",
                "nibabel",
                "pillow",
                "scipy",
                "cachetools",
                "medmnist",
                "pooch",
                "ruamel.yaml",
                "psutil",
            ],
            registered_model_name=name,
        )
