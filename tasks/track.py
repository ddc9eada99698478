"""track: parameters, tags and per-round metrics of a run in MLflow."""

import math
import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile
from federated.errors import ConsiliumError
from federated.files import cannot_write, locked, write_text
from federated.learning import metrics_in, smaller_is_better
from federated.learning.evaluation import Evaluation
from federated.run.folder import RunFolder
from tasks.described import beginning
from tasks.mlflow_server import PAGES
from tasks.new_database import MLFLOW, begin_database
from tasks.reachable import require_mlflow, without_password

# MLflow takes seconds to import, and is not needed before data and sites are there, nor at a site.
if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE = Path("mlruns")
NOT_TOLD = "not told"
# Of more sites than this, MLflow gets no metrics of each: nobody reads a page with thousands of
# them, and to write them takes seconds a round. They are in the records of the rounds.
MOST_TRACKED = 100
# The tag by which MLflow's pages know what an experiment is; MLflow 3.17 has no name for it.
KIND, TRAINS_MODELS = "mlflow.experimentKind", "custom_model_development"
# Further tags that MLflow's pages know; by its names of them MLflow would be imported here.
NOTE, PARENT = "mlflow.note.content", "mlflow.parentRunId"
METRIC = "mlflow.experiment.primaryMetric.name"
# What an address of MLflow's pages ends with, or a browser that has not been there before shows it
# as if it were of a language model.
OF_TRAINING = "workflowType=machine_learning"
GREATER_IS_BETTER = "mlflow.experiment.primaryMetric.greaterIsBetter"
# The run of a comparison, while its runs are begun.
comparison: ContextVar[str | None] = ContextVar("comparison", default=None)


def tracking_uri() -> str:
    """The address ``MLFLOW_TRACKING_URI`` where it is set, else the database in ``mlruns/``."""
    # Absolute, because MLflow keeps a connection by its text even if the folder changes.
    local = f"sqlite:///{STORE.resolve() / 'mlflow.db'}"
    return os.environ.get("MLFLOW_TRACKING_URI") or local


def import_client() -> None:
    """Import MLflow now, which takes a second, for who has to wait anyhow."""
    from mlflow import MlflowClient  # noqa: F401


def client() -> "MlflowClient":
    """A client of the tracking and model registry server.

    Raises:
        ConsiliumError: the server that ``MLFLOW_TRACKING_URI`` names does not answer, or the local
            folder cannot be written to.
    """
    from mlflow import MlflowClient

    if os.environ.get("MLFLOW_TRACKING_URI"):
        require_mlflow()
        return MlflowClient(tracking_uri())
    try:
        STORE.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(STORE.resolve(), error, "of MLflow") from error
    # The first client makes the database, and two at once spoil each other's.
    with locked(STORE / ".lock"):
        if not (STORE / "mlflow.db").exists():
            begin_database(MLFLOW, tracking_uri())
        return MlflowClient(tracking_uri())


def unusable_errors() -> tuple[type[Exception], ...]:
    """What MLflow raises where its store or its server cannot be used."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, OSError, SQLAlchemyError)


def unusable(error: Exception) -> ConsiliumError:
    """The error that says that MLflow cannot be used, which the caller raises."""
    remedy = (
        "Start that server, or unset MLFLOW_TRACKING_URI to use the local mlruns/."
        if os.environ.get("MLFLOW_TRACKING_URI")
        else f"Make {STORE.resolve()} and the files in it readable and writable."
    )
    said = (str(error) or type(error).__name__).splitlines()[0]
    text = without_password(f"MLflow at {tracking_uri()} cannot be used ({said})")
    return ConsiliumError(f"{text}. {remedy}")


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings by ``section.key``, as text."""
    result: dict[str, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            result |= flattened(item, f"{prefix}{key}.")
        else:
            result[prefix + key] = str(item)
    return result


@task(name="track-start", task_run_name="track-start {experiment.name}", cache_policy=NO_CACHE)
def start_tracking(
    experiment: Experiment, folder: RunFolder, data: LocatedFile, git_commit: str
) -> str:
    """Open the MLflow run of a run folder, or the one it had before; return its id.

    Raises:
        ConsiliumError: the tracking server does not answer.
    """
    marker = folder.root / "mlflow_run_id"
    md5 = data.told_md5(experiment.privacy.unit is not None) or NOT_TOLD
    try:
        mlflow = client()
        if marker.is_file():
            return _reopened(mlflow, marker.read_text().strip(), md5)
        tags = {
            "mlflow.source.git.commit": git_commit,
            "mlflow.source.name": "consilium",
            "git_commit": git_commit,
            "data_md5": md5,
            "data_source": data.source,
            "dvc_stage": os.environ.get("DVC_STAGE", ""),
            "run_folder": str(folder.root),
            NOTE: beginning(experiment, data.source, len(folder.sites())),
        }
        from mlflow.entities import Param

        if above := comparison.get():
            tags[PARENT] = above
        opened = experiment_id(mlflow, experiment.name)
        _name_metric(mlflow, opened, experiment.selection.metric)
        run = mlflow.create_run(opened, run_name=folder.run_id, tags=tags)
        params = [Param(key, text) for key, text in flattened(experiment.to_json()).items()]
        mlflow.log_batch(run.info.run_id, params=params)
    except unusable_errors() as error:
        raise unusable(error) from error
    write_text(marker, run.info.run_id + "\n")
    return str(run.info.run_id)


def _name_metric(mlflow: "MlflowClient", opened: str, metric: str) -> None:
    """Have MLflow's pages show first by which metric models are chosen."""
    split, name = metric.split("/", 1)
    shown = f"{split}/{_plain(name)}"
    mlflow.set_experiment_tag(opened, METRIC, shown)
    mlflow.set_experiment_tag(opened, GREATER_IS_BETTER, str(not smaller_is_better(name)))


def found_run(mlflow_run_id: str) -> str | None:
    """The id of a run as it is; ``None`` where MLflow does not have it, as one of another store."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        return str(client().get_run(mlflow_run_id).info.run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return None


def adopt(mlflow_run_id: str, parent: str) -> None:
    """Show a run below another one, such as a comparison's."""
    client().set_tag(mlflow_run_id, PARENT, parent)


def run_page(mlflow_run_id: str, artifact: str = "") -> str | None:
    """Where a run's page is in MLflow, for a link; ``None`` where no server has pages.

    With ``artifact``, it is the page of that file of the run.

    ``CONSILIUM_MLFLOW_PAGES`` says how people reach the pages, where that is another address than
    programs of this machine use.
    """
    pages = os.environ.get(PAGES) or tracking_uri()
    if not pages.startswith(("http://", "https://", "/")):
        return None
    run = client().get_run(mlflow_run_id).info
    base = without_password(pages).rstrip("/")
    below = f"/artifacts/{artifact}" if artifact else ""
    return f"{base}/#/experiments/{run.experiment_id}/runs/{mlflow_run_id}{below}?{OF_TRAINING}"


def _reopened(mlflow: "MlflowClient", run_id: str, md5: str) -> str:
    mlflow.update_run(run_id, status="RUNNING")
    mlflow.set_tag(run_id, "data_md5", md5)
    return run_id


def experiment_id(mlflow: "MlflowClient", name: str) -> str:
    """The id of an MLflow experiment, made if it is not there yet.

    It is marked as one that trains models: MLflow's pages open others as if they were of language
    models, with traces in place of runs.
    """
    found = mlflow.get_experiment_by_name(name)
    if found:
        if KIND not in found.tags:
            mlflow.set_experiment_tag(found.experiment_id, KIND, TRAINS_MODELS)
        return str(found.experiment_id)
    local = not os.environ.get("MLFLOW_TRACKING_URI")
    location = (STORE / "artifacts" / name).resolve().as_uri() if local else None
    tags = {KIND: TRAINS_MODELS}
    return str(mlflow.create_experiment(name, artifact_location=location, tags=tags))


def _plain(name: str) -> str:
    """A metric's name as MLflow takes it: that of a label may have any characters."""
    return re.sub(r"[^\w. -]", "_", name)


@task(name="track", task_run_name="track round {round_number}", cache_policy=NO_CACHE)
def track_round(
    mlflow_run_id: str,
    round_number: int,
    evaluation: Evaluation,
    numbers: Mapping[str, float],
    timed: bool = True,
) -> None:
    """Log a round's metrics: global, per site, and ``numbers`` such as bytes and seconds.

    Of more than :data:`MOST_TRACKED` sites there are none per site, but the spread over them.

    Args:
        mlflow_run_id: the run in MLflow.
        round_number: the round.
        evaluation: the round's metrics.
        numbers: further values by name.
        timed: whether it is logged when that was; for a private run that would tell how long a
            round took.
    """
    from mlflow.entities import Metric

    # MLflow's list of metrics keeps this order: what the model does, then what it costs.
    values: dict[str, float | None] = {}
    for split, metrics in evaluation.overall.items():
        values |= {f"{split}/{_plain(name)}": value for name, value in metrics.items()}
    values |= numbers
    for split, spread in evaluation.site_spread.items():
        values |= {f"{split}/{n}_{how}_site": v for n, s in spread.items() for how, v in s.items()}
    for site, by_split in _few(evaluation.per_site).items():
        for split, metrics in by_split.items():
            names = [name for name in metrics_in("site") if name in metrics]
            values |= {f"{site}/{split}/{name}": metrics[name] for name in names}
    if evaluation.calibration is not None:
        values |= evaluation.calibration.numbers()
    now = int(time.time() * 1000) if timed else 0
    batch = [
        Metric(name, value, now, round_number)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]
    client().log_batch(mlflow_run_id, metrics=batch)


def _few(per_site: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is told of each site, where there are so few that a person reads it."""
    return per_site if len(per_site) <= MOST_TRACKED else {}


@task(name="track-privacy", task_run_name="track privacy", cache_policy=NO_CACHE)
def track_privacy(mlflow_run_id: str, privacy: Mapping[str, Any]) -> None:
    """Log what a run has spent: the site that has spent most, and each of few sites."""
    from mlflow.entities import Metric, RunTag

    values = {key: privacy[key] for key in ("epsilon", "epsilon_per_round", "epsilon_ledger")}
    values["delta"] = privacy["delta"]
    own = _few(privacy["per_site"])
    values |= {f"{site}/epsilon": report["epsilon"] for site, report in own.items()}
    now = int(time.time() * 1000)
    metrics = [
        Metric(f"privacy/{name}", value, now, 0)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    ]
    tags = [RunTag(f"privacy.{key}", str(privacy[key])) for key in ("unit", "accountant", "noise")]
    client().log_batch(mlflow_run_id, metrics=metrics, tags=tags)


@task(name="track-end", task_run_name="track-end {status}", cache_policy=NO_CACHE)
def end_tracking(
    mlflow_run_id: str,
    status: str,
    artifacts: list[Path],
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Keep files and folders as artifacts, set tags, and close the run with a status.

    Args:
        mlflow_run_id: the run in MLflow.
        status: how it has ended, as ``FINISHED``.
        artifacts: the files and folders; what is not there is left out.
        tags: further tags.
        metrics: numbers of the whole run, which are no round's.
    """
    from mlflow.entities import Metric, RunTag

    mlflow = client()
    # A moment of none: when a private run has ended says how long its rounds took.
    numbers = [
        Metric("/".join(map(_plain, name.split("/"))), value, 0, 0)
        for name, value in (metrics or {}).items()
    ]
    mlflow.log_batch(mlflow_run_id, metrics=numbers)
    for path in artifacts:
        if path.is_dir():
            mlflow.log_artifacts(mlflow_run_id, str(path), artifact_path=path.name)
        elif path.is_file():
            mlflow.log_artifact(mlflow_run_id, str(path))
    mlflow.log_batch(mlflow_run_id, tags=[RunTag(k, v) for k, v in (tags or {}).items()])
    mlflow.set_terminated(mlflow_run_id, status)
