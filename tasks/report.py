"""report: a run's page for people, beside its summary."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.data.load import known_info
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_text
from federated.learning import task_of
from federated.learning.final_task import final_task
from federated.report.values import MOST_LISTED, RunValues
from federated.run.final_record import read_groups
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
    from federated.report.run_page import FOREIGN, run_page

    values, path = read_values(folder, pictures), folder.root / REPORT
    try:
        page = run_page(values)
    except FOREIGN as error:
        raise _other(folder.summary_path, error) from error
    write_text(path, page)
    return path


def write_comparison(folder: Path, document: Mapping[str, Any] | None = None) -> Path:
    """Write ``report.html`` into the folder of a comparison.

    Args:
        folder: the comparison's.
        document: its ``runs.json``; read from there where it is left out.

    Raises:
        ConsiliumError: there is no such file, or it is of an older version or something else.
    """
    from federated.report.comparison_page import comparison_page
    from federated.report.run_page import FOREIGN

    told = read_object(folder / RUNS) if document is None else document
    if "experiment" not in told:
        raise ConsiliumError(
            f"{folder / RUNS} is of an older version. Run the command of that comparison again, "
            "which `table.md` beside it begins with: what is finished is not run again."
        )
    path = folder / REPORT
    try:
        page = comparison_page(told)
    except FOREIGN as error:
        raise _other(folder / RUNS, error) from error
    write_text(path, page)
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
    summary: Mapping[str, Any] = read_object(folder.summary_path)
    experiment = folder.experiment()
    info = known_info(experiment.data)
    try:
        kept = int(summary["kept_round"])
    except (KeyError, ValueError, TypeError) as error:
        raise _other(folder.summary_path, error) from error
    left: list[str] = []
    validation = folder.root / FILE
    counted = _population_file(folder.root.parent.parent / "statistics" / experiment.name)
    curves = folder.statistics_path(kept)
    form = task_of(info, experiment.evaluation).statistics.form(info)
    return RunValues(
        summary=summary,
        experiment=experiment,
        info=info,
        records=folder.records(_curves_of(summary)),
        cases=folder.case_counts().sites,
        statistics=_or_left_out(
            lambda: read_statistics(curves, form), "Curves and intervals", curves, left
        ),
        validation=_or_left_out(
            lambda: read_object(validation), "What validation found", validation, left
        )
        if validation.is_file()
        else None,
        population=_or_left_out(
            lambda: read_object(counted), "Whom the training cases are of", counted, left
        )
        if counted
        else None,
        groups=_or_left_out(
            lambda: read_groups(folder.groups_path, final_task(info, experiment.evaluation)),
            "Intervals of subgroups",
            folder.groups_path,
            left,
        )
        or {},
        pictures=_pictures(folder.root / "overlays", left) if pictures else {},
        planned=folder.planned_path.is_file(),
        left_out=left,
    )


def _curves_of(summary: Mapping[str, Any]) -> frozenset[str] | None:
    """The sites whose learning curves a page may have; ``None`` for all, where they are few."""
    sites = summary.get("sites")
    if not isinstance(sites, list) or len(sites) <= MOST_LISTED:
        return None
    return frozenset(map(str, sites[:MOST_LISTED]))


def _or_left_out(read: Callable[[], Any], what: str, path: Path, left: list[str]) -> Any:
    """What is read; where it cannot be, nothing, and a sentence in ``left``.

    The sentence names the file and not where it lies: a page is given to others.

    Args:
        read: reads it.
        what: what it is, as the sentence begins.
        path: its file.
        left: gets the sentence.
    """
    try:
        return read()
    except (ConsiliumError, OSError):
        left.append(f"{what}: not told here, since {path.name} is damaged or something else.")
        return None


def read_object(path: Path) -> Any:
    """The object in a JSON file of a run's folder.

    Raises:
        ConsiliumError: it cannot be read, or is something else.
    """
    try:
        value = read_json(path)
        if not isinstance(value, dict):
            raise TypeError("it is no table of values")
        return value
    except (OSError, ValueError, TypeError) as error:
        raise ConsiliumError(
            f"The run's {path} cannot be read ({why_unreadable(error)}). Put the file back."
        ) from error


def _other(path: Path, error: Exception) -> ConsiliumError:
    """The error for a file that has not what a page is made of; the caller raises it."""
    return ConsiliumError(
        f"There can be no report of {path}: it is damaged, of another version or of something else "
        f"({error!r:.100}). Put back the file that was there."
    )


def _population_file(runs: Path) -> Path | None:
    """The newest statistics of an experiment that are told; ``None`` where there are none."""
    found = sorted(runs.glob("*/statistics.json")) if runs.is_dir() else []
    return found[-1] if found else None


def _pictures(folder: Path, left: list[str]) -> dict[str, bytes]:
    """The PNG files of a run's test cases, by their names without an ending.

    Of one that cannot be read, or is too large, there is a sentence in ``left``.
    """
    pictures = {}
    for path in sorted(folder.glob("*.png")) if folder.is_dir() else []:
        try:
            if path.stat().st_size > LARGEST_PICTURE:
                raise ConsiliumError("too large")
            pictures[path.stem] = path.read_bytes()
        except (ConsiliumError, OSError):
            left.append(
                f"The picture {path.name}: not here, since it cannot be read, or has more than "
                f"{LARGEST_PICTURE // 2**20} MiB."
            )
    return pictures
