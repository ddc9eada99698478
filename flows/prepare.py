"""fl-prepare: download, partition, validate.

Validation judges each site's own cases, so the partition, which says whose they are, comes first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow

from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.configuration.subgroups import refuse_without_attributes
from federated.data.dataset import LocatedFile
from federated.data.partition import Partition, leave_out
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from federated.run.prepared import PreparedFolder, partition_inputs, write_prepared_partition
from federated.run.validation_report import write_report
from flows.going_on import goes_on_by, preparing
from flows.progress import begins, counted, tell
from flows.written import counted_task_runs
from tasks.prepare import download, keep, partition, read
from tasks.validate import validate

PHANTOM_BANNER = (
    "NOTE: data_source: phantom. These are generated images, not {name}; no number of this run "
    "says anything about patients."
)


@dataclass(frozen=True)
class Prepared:
    """What the rounds start from; ``excluded`` are the sites that validation excluded."""

    data: LocatedFile
    dataset: AnyDataset
    partition: Partition
    excluded: tuple[str, ...]


def prepare(
    experiment: Experiment, folder: RunFolder, begun_with: LocatedFile | None = None
) -> Prepared:
    """The graph of fl-prepare, for use inside another flow; it writes into a run's ``folder``.

    The data are read where they were found, so that what is wrong is named by its own path. For a
    private run, what is found in the cases stays with the sites.

    Raises:
        ConsiliumError: what a stage raises, or the data are not those that a run was
            ``begun_with``; nothing is written then.
    """
    begins(f"looking for the data of {experiment.data.dataset}")
    data = download(experiment)
    _refuse_other_data(experiment, folder, data, begun_with)
    begins("reading the data and dealing the cases to sites")
    dataset = read(experiment, data)
    refuse_without_attributes(experiment, dataset, data)
    whole = partition(experiment, dataset)
    header = _shared_header(experiment, data)
    folder.write_partition(whole, header)
    reports = folder.own_reports if experiment.privacy.unit else folder.root
    begins(f"validating the data of {counted(len(whole.sites), 'site')}")
    validation = validate(experiment, dataset, whole, folder.root, reports, data)
    if said := validation.line():
        tell(said)
    left = leave_out(whole, validation.dropped)
    folder.write_partition(left, header)
    return Prepared(data, dataset, left, validation.excluded)


def unvalidated(experiment: Experiment, folder: RunFolder) -> Prepared:
    """The cases of a run's sites as they are dealt, before it is known what they are prepared for.

    Raises:
        ConsiliumError: the data cannot be had, or not be dealt to the sites.
    """
    begins(f"looking for the data of {experiment.data.dataset}")
    data = download(experiment)
    begins("reading the data and dealing the cases to sites")
    dataset = read(experiment, data)
    whole = partition(experiment, dataset)
    folder.write_partition(whole, _shared_header(experiment, data))
    return Prepared(data, dataset, whole, ())


def take_prepared(
    experiment: Experiment,
    source: PreparedFolder,
    folder: RunFolder,
    begun_with: LocatedFile | None = None,
) -> Prepared:
    """What an earlier fl-prepare or DVC left in ``source``, copied to a run's ``folder``.

    The cases of a run that was planned are validated once more: when they were prepared nobody knew
    the voxels and the scale by which they are to be judged.

    Raises:
        ConsiliumError: it does not fit, or is not what a run was ``begun_with``; or the data fail
            validation by the plan.
    """
    source.check_fits(experiment)
    excluded = source.excluded_sites()
    begins("reading the prepared data")
    data = source.data()
    _refuse_other_data(experiment, folder, data, begun_with)
    dataset = read(experiment, data)
    refuse_without_attributes(experiment, dataset, data)
    reports = folder.own_reports if experiment.privacy.unit else folder.root
    if folder.planned_path.is_file():
        whole = source.full_partition()
        # Not as found before: what such a folder says of its data's MD5 is not looked at again.
        validation = validate(experiment, dataset, whole, folder.root, reports)
        excluded, left = validation.excluded, leave_out(whole, validation.dropped)
    else:
        write_report(source.report(), folder.root, reports)
        left = source.partition()
    folder.write_partition(left, _shared_header(experiment, data))
    return Prepared(data, dataset, left, excluded)


def _shared_header(experiment: Experiment, data: LocatedFile) -> dict[str, Any]:
    """What a run tells of what its partition was made from."""
    return partition_inputs(experiment, data, data.told_md5(experiment.privacy.unit is not None))


def _refuse_other_data(
    experiment: Experiment, folder: RunFolder, data: LocatedFile, begun_with: LocatedFile | None
) -> None:
    if begun_with and begun_with.md5 != data.md5:
        private = experiment.privacy.unit is not None
        now, then = data.told_md5(private), begun_with.told_md5(private)
        told = f"its MD5 is {now}, then it was {then}" if now and then else "its MD5 is another"
        raise ConsiliumError(
            f"The data file {data.path} has changed since run {folder.run_id} began: "
            f"{told}. Put the old file back to resume, or "
            f"start a new run with `consilium run {experiment.name}`."
        )


@flow(name="fl-prepare", flow_run_name="prepare-{experiment}")
def fl_prepare(
    experiment: str, overrides: list[str] | None = None, params: str = "params.yaml"
) -> str:
    """Prepare an experiment's data under ``<data.root>/prepared/<experiment>``; return that.

    Raises:
        ConsiliumError: something in the input cannot be used, or the data fail validation.
    """
    resolved = load_experiment(experiment, overrides or (), Path(params))
    folder = prepared_folder(resolved)
    with (
        counted_task_runs(),
        goes_on_by(preparing(experiment, overrides or (), Path(params), folder.root)),
    ):
        _prepare_folder(resolved, folder)
    return str(folder.root)


def _prepare_folder(resolved: Experiment, folder: PreparedFolder) -> None:
    """Download, partition and validate an experiment's data in a folder outside a run.

    Raises:
        ConsiliumError: the data fail validation, or cannot be used.
    """
    data = download(resolved)
    dataset = read(resolved, data)
    keep(data, folder)
    whole = partition(resolved, dataset)
    write_prepared_partition(folder.partition_path, resolved, data, dataset, whole)
    validation = validate(resolved, dataset, whole, folder.root, data=data)
    if said := validation.line():
        tell(said)
    write_prepared_partition(
        folder.partition_path, resolved, data, dataset, leave_out(whole, validation.dropped)
    )


def still_to_plan(experiment: Experiment) -> str:
    """What a person who prepares data has to know of what is `auto`; ``""`` where nothing is."""
    auto = experiment.planning.auto
    if not auto:
        return ""
    return (
        f"NOTE: {', '.join(auto)} {'are' if len(auto) > 1 else 'is'} planned by the sites when a "
        "run begins. These data were validated without; `consilium run "
        f"{experiment.name} --prepared` validates them once more by the plan."
    )


def prepared_folder(experiment: Experiment) -> PreparedFolder:
    """The folder of an experiment's data, partition and validation outside a run."""
    return PreparedFolder(experiment.data.root / "prepared" / experiment.name)
