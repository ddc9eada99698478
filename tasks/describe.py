"""describe: what a finished run has come to, for who reads Prefect, MLflow or its registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from federated.configuration.experiment import Experiment
from tasks.described import beginning, first_line, result
from tasks.register import ALIAS
from tasks.report import REPORT
from tasks.round_table import key_of
from tasks.track import NOTE, client, run_page, unusable_errors

# A page in a run's folder, which is an artifact in MLflow too, as the report is.
DATA_DOCS = "data_docs/index.html"


@task(name="describe", task_run_name="describe {experiment.name}", cache_policy=NO_CACHE)
def describe(experiment: Experiment, root: Path, summary: Mapping[str, Any]) -> str:
    """Describe a finished run in MLflow and its registry, and leave a page of it in Prefect.

    It is for people to look at: where one of them does not take it, the run has ended all the same.

    Args:
        experiment: the run's configuration.
        root: the run's folder.
        summary: its ``summary.json``.

    Returns:
        The page, as Markdown.
    """
    began = beginning(experiment, summary["data_source"], len(summary["sites"]))
    text = f"{first_line(summary)}\n\n{began}\n\n{result(summary)}"
    run_id, version = summary["mlflow_run_id"], summary["model_version"]
    links = f"Files: `{root}`"
    try:
        links = links_of(root, run_id)
        client().set_tag(run_id, NOTE, f"{text}\n\n{links}")
        if version is not None:
            _describe_version(experiment, version, text)
    except unusable_errors() as error:
        links += f"\n\nMLflow has not taken this description: {type(error).__name__}."
    page = f"# {experiment.name} {summary['run_id']}\n\n{text}\n\n{links}"
    if FlowRunContext.get():
        create_markdown_artifact(
            page, key=key_of("run", experiment.name), description=f"Run {summary['run_id']}."
        )
    return page


def _describe_version(experiment: Experiment, version: int, text: str) -> None:
    registry, name = client(), experiment.name
    registry.update_model_version(name, str(version), description=text)
    registry.update_registered_model(
        name,
        f"Models of the experiment `{name}`, a version for each run. The alias `{ALIAS}` is at the "
        f"one whose `{experiment.selection.metric}` is best; each version says why it became that "
        "or did not.",
    )


def links_of(root: Path, mlflow_run_id: str) -> str:
    """Where the rest of a run is, as Markdown: pages in MLflow, where it has any, and files."""
    page = run_page(mlflow_run_id)
    found = [f"[This run in MLflow]({page})"] if page else []
    for what, name in (("Report", REPORT), ("Validation of the data", DATA_DOCS)):
        if (root / name).is_file():
            page = run_page(mlflow_run_id, name)
            found.append(f"[{what}]({page})" if page else f"{what}: `{name}`")
    return " · ".join([*found, f"Files: `{root}`"])
