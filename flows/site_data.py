"""Which data sets a site of a consortium has, whether they can be used, and which cases it has."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from federated.configuration.description_file import find_description
from federated.configuration.load import resolve
from federated.data.dataset import SPLITS, Split, TaskName
from federated.data.folders.dataset import FolderDataset
from federated.data.folders.families import FAMILIES
from federated.data.load import load, locate_local
from federated.data.medmnist.files import DATASETS, dataset_info
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError
from federated.files import make_folders
from federated.settings.sections import ValidationSettings
from tasks.validate import validate


def data_lines(
    folder: Path,
    allowed: Sequence[str] | Literal["any"],
    site: str,
    reports: Path,
    rules: ValidationSettings,
) -> Iterator[tuple[bool, str]]:
    """For each data set that a site's policy allows, whether it can be used, and what it has.

    Where the policy allows any, that is told of those that are there.

    Args:
        folder: the folder that the data sets lie in.
        allowed: what the policy names.
        site: the site's name.
        reports: below which what validation finds is written, for the site alone.
        rules: the site's own, for which cases are faulty.
    """
    names = _there(folder) if allowed == "any" else list(allowed)
    found = [_line(folder, name, site, reports, rules) for name in names]
    told = [each for name, each in zip(names, found, strict=True) if each or allowed != "any"]
    if not told:
        yield False, f"there are no data sets in {folder}, or the policy allows none"
    for name, each in zip(names, found, strict=True):
        if each is not None:
            yield each
        elif allowed != "any":
            yield False, f"{name} is not in {folder}"


def _there(folder: Path) -> list[str]:
    return [*DATASETS, *FAMILIES, *sorted(p.parent.name for p in folder.glob("*/dataset.yaml"))]


def _line(
    folder: Path, name: str, site: str, reports: Path, rules: ValidationSettings
) -> tuple[bool, str] | None:
    """What is found of a data set; ``None`` where it is not there."""
    # Reads images of every kind, which a process that takes part in runs may never do.
    from flows.own_data import judging

    try:
        known = name in DATASETS or name in FAMILIES
        described = None if known else find_description(name, folder)
        if not known and described is None:
            return None
        task = described.task if described else task_of_set(name)
        value = judging(name, folder, task, described)
        experiment = resolve("site-check", value, str(folder))
        experiment = experiment.model_copy(update={"validation": rules})
        located = locate_local(experiment.data)
        if located is None:
            return None
        dataset = load(located, experiment.data)
        mine = Partition({site: cases_of(dataset, site)}, draws=0, moved=0)
        place = reports / name
        make_folders(place, private=True)
        validate.fn(experiment, dataset, mine, place)
    except ConsiliumError as error:
        return False, f"{name}: {error}"
    counts = ", ".join(f"{split} {len(cases)}" for split, cases in mine.sites[site].items())
    return True, f"{name} at {located.path}: {counts} cases, valid ({place}/data_docs)"


def task_of_set(name: str) -> TaskName:
    """What is learnt of a data set that the project knows."""
    return dataset_info(name).task if name in DATASETS else "segmentation"


def cases_of(dataset: AnyDataset, site: str) -> dict[Split, tuple[int, ...]]:
    """The cases that are a site's own: all in its folder, or those that the data call its own.

    Raises:
        ConsiliumError: the data name several sites, and this is none of them.
    """
    named: dict[Split, list[str | None]]
    if isinstance(dataset, FolderDataset):
        named = {split: [case.site for case in dataset.cases[split]] for split in SPLITS}
    elif dataset.origins is not None:
        named = {split: [case.site for case in dataset.origins[split]] for split in SPLITS}
    else:
        named = {split: [None] * len(dataset.labels[split]) for split in SPLITS}
    known = {name for names in named.values() for name in names}
    wanted = known if len(known) <= 1 else known & {site, site.removeprefix("site-")}
    if known and not wanted:
        several = ", ".join(sorted(map(str, known)))
        raise ConsiliumError(
            f"The data of {site} are of several sites ({several}), and it is none of them. Keep "
            "only this site's own cases there, or give the site the name that its table has."
        )
    return {
        split: tuple(i for i, name in enumerate(named[split]) if name in wanted) for split in SPLITS
    }
