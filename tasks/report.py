"""report: a run's page for people, beside its summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.load import known_info
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_text
from federated.learning import task_of
from federated.report.values import RunValues
from federated.run.folder import RunFolder
from federated.run.statistics_file import read_statistics
from federated.run.validation_report import FILE

REPORT, RUNS = "report.html", "runs.json"
# In bytes, of one picture: three of each site stand in the page.
LARGEST_PICTURE = 4 * 2**20


@task(name="report", task_run_name="report", cache_policy=NO_CACHE)
def report(folder: RunFolder) -> Path:
    """Write the page of a run whose summary is written, and return its file."""
    return write_report(folder)


def write_report(folder: RunFolder, pictures: bool = True) -> Path:
    """Write ``report.html`` into the folder of a finished run.

    Args:
        folder: the run's.
        pictures: whether pictures of test cases are on the page, where the run has any.

    Raises:
        ConsiliumError: the run is not finished, or one of its files is damaged.
    """
    from federated.report.run_page import run_page

    path = folder.root / REPORT
    write_text(path, run_page(read_values(folder, pictures)))
    return path


def write_comparison(folder: Path, document: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into the folder of a comparison.

    Args:
        folder: the comparison's.
        document: its ``runs.json``; read from there where it is left out.

    Raises:
        ConsiliumError: there is no such file, or it is of an older version.
    """
    from federated.report.comparison_page import comparison_page

    told = _read(folder / RUNS) if document is None else document
    if "experiment" not in told:
        raise ConsiliumError(
            f"{folder / RUNS} is of an older version. Run the command of that comparison again, "
            "which `table.md` beside it begins with: what is finished is not run again."
        )
    path = folder / REPORT
    write_text(path, comparison_page(told))
    return path


def read_values(folder: RunFolder, pictures: bool = True) -> RunValues:
    """What a run's page is made of, from the files that the coordinator has.

    Args:
        folder: the run's.
        pictures: whether pictures of test cases are read.

    Raises:
        ConsiliumError: the run is not finished, or one of its files is damaged.
    """
    if not folder.summary_path.is_file():
        raise ConsiliumError(
            f"There is no {folder.summary_path}: the run is not finished. Finish it with "
            f"`consilium resume {folder.root.parent.name} {folder.run_id}`."
        )
    summary: Mapping[str, Any] = _read(folder.summary_path)
    experiment = folder.experiment()
    info = known_info(experiment.data)
    kept = int(summary["kept_round"])
    validation = folder.root / FILE
    return RunValues(
        summary=summary,
        experiment=experiment,
        info=info,
        records=folder.records(),
        cases=folder.case_counts().sites,
        statistics=read_statistics(
            folder.statistics_path(kept),
            task_of(info, experiment.evaluation).statistics.form(info),
        ),
        validation=_read(validation) if validation.is_file() else None,
        population=_population(folder.root.parent.parent / "statistics" / experiment.name),
        pictures=_pictures(folder.root / "overlays") if pictures else {},
    )


def _read(path: Path) -> Any:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError) as error:
        raise ConsiliumError(
            f"The run's {path} cannot be read ({why_unreadable(error)}). Put the file back."
        ) from error


def _population(runs: Path) -> Any:
    """The newest statistics of an experiment that are told; ``None`` where there are none."""
    found = sorted(runs.glob("*/statistics.json")) if runs.is_dir() else []
    return _read(found[-1]) if found else None


def _pictures(folder: Path) -> dict[str, bytes]:
    """The PNG files of a run's test cases, by their names without an ending."""
    found = sorted(folder.glob("*.png")) if folder.is_dir() else []
    return {
        path.stem: path.read_bytes() for path in found if path.stat().st_size <= LARGEST_PICTURE
    }
