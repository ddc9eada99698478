"""What `consilium data init` and `consilium data check` do with a folder of one's own."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from federated.configuration.description_file import find_description
from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.configuration.params_file import read_params
from federated.data.contact_sheet import contact_sheet, sites_of
from federated.data.dataset import SPLITS, Dataset, TaskName
from federated.data.folders.described.automatic import case_grid
from federated.data.folders.described.case_table import dicom_rules
from federated.data.folders.described.proposal import propose
from federated.data.folders.described.table_roles import CASES, DESCRIPTION
from federated.data.folders.described.text import (
    description_text,
    experiment_text,
    open_doubts,
    table_text,
)
from federated.data.folders.dicom.identifiers import Identifying, identifying
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.dicom.series_path import split_series
from federated.data.folders.families import FAMILIES, CaseFiles, Family
from federated.data.folders.read_case import read_case
from federated.data.folders.read_volume import is_dicom
from federated.data.labelling import LABELLINGS, refuse_constant
from federated.data.load import load, locate_local, missing
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.errors import ConsiliumError
from federated.files import atomic_path, require_writable, write_text
from federated.learning import TASKS
from federated.settings.description import Description
from federated.settings.names import refuse_name

SHEET = "thumbnails.png"
# Where `consilium data check` writes what it shows; .gitignore names it.
CHECKED = Path("data-check")


def init(folder: Path, params: Path = Path("params.yaml")) -> list[str]:
    """Propose what describes a folder, write what is missing, and tell what is unsure.

    A file that is there is never changed. The last of what is told is an experiment that can be run
    as it stands: what the defaults of ``params`` leave out, it states.

    Raises:
        ConsiliumError: nothing can be proposed, or the folder cannot be written to.
    """
    refuse_name(folder.resolve().name, "a data set's name: it is the folder's", f" ({folder})")
    require_writable(folder, "of the data set", private=False)
    proposal = propose(folder)
    said = [f"{folder}: " + _kind_of(proposal.description)]
    texts = {DESCRIPTION: description_text(proposal.description, proposal.doubts)}
    if proposal.table is not None:
        texts[CASES] = table_text(proposal.table)
        said.append(f"{len(proposal.table)} cases were found")
    for name, text in texts.items():
        if (folder / name).exists():
            said.append(f"{folder / name} is there, and stays as it is; proposed would be:")
            said.append(text)
        else:
            write_text(folder / name, text)
            said.append(f"wrote {folder / name}")
    said += ["to be looked at:", *(f"- {doubt}" for doubt in proposal.doubts)]
    said += [
        f"then: consilium data check {folder}, which writes thumbnails into {CHECKED}/: they show "
        "patients, and are not to be committed",
        *_next_steps(folder, proposal.sites, params),
    ]
    return said


def _kind_of(description: dict[str, Any]) -> str:
    return f"{description['task']} of {description['kind']}"


def _next_steps(folder: Path, sites: int, params: Path) -> list[str]:
    name = folder.resolve().name
    try:
        description = find_description(name, folder.resolve().parent)
    except ConsiliumError as error:
        return [f"as it is now, the description cannot be used: {error}"]
    if description is None:
        return [f"{name} is the name of a set that the project knows: give the folder another"]
    where = f"with CONSILIUM_DATA or data.root naming {folder.resolve().parent}:"
    if not params.exists():
        entry = experiment_text(name, description, sites)
        return [
            f"to train on it, as the file {params}, which is not here yet, {where}",
            f"experiments:\n{entry}",
        ]
    try:
        defaults = read_params(params).get("defaults") or {}
    except ConsiliumError as error:
        return [
            str(error),
            f"then, to train on it, {where}",
            experiment_text(name, description, sites),
        ]
    entry = experiment_text(name, description, sites, defaults)
    return [f"to train on it, under `experiments:` in {params}, {where}", entry]


@dataclass(frozen=True)
class Looked:
    """A data set that was read, with the partition and the experiment that it is judged by."""

    experiment: Experiment
    dataset: AnyDataset
    partition: Partition


def look(folder: Path) -> Looked:
    """Read a folder as `consilium run` would, with the sites that it names.

    Raises:
        ConsiliumError: it cannot be read, or is not what its description says.
    """
    name, root = folder.resolve().name, folder.resolve().parent
    described = find_description(name, root)
    if described is None and name not in FAMILIES:
        raise ConsiliumError(
            f"The folder {folder} has no {DESCRIPTION}. Propose one with `consilium data init "
            f"{folder}`."
        )
    task: TaskName = described.task if described else "segmentation"
    value = judging(name, root, task, described)
    experiment = resolve("data-check", value, str(folder))
    located = locate_local(experiment.data)
    if located is None:
        raise ConsiliumError(missing(experiment.data))
    dataset = load(located, experiment.data)
    if isinstance(dataset, Dataset):
        refuse_constant(dataset.labels["train"], dataset.info)
    known = dataset.origins if isinstance(dataset, Dataset) else dataset.cases
    sites = sites_of([case for split in SPLITS for case in known[split]]) if known else []
    if sites:
        value["sites"] |= {"count": len(sites), "partition": "natural"}
        experiment = resolve("data-check", value, str(folder))
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    return Looked(experiment, dataset, partition)


def judging(name: str, root: Path, task: TaskName, described: Description | None) -> dict[str, Any]:
    """An experiment by which the data of one site are judged, before there is any other.

    Args:
        name: the data set's.
        root: the folder that it lies in.
        task: what is learnt of it.
        described: its description, where it has one.
    """
    value: dict[str, Any] = {
        "data": {"dataset": name, "source": "files", "root": str(root)},
        "sites": {"count": 1, "partition": "iid", "min_cases": 1},
        "strategy": {"name": "fedavg"},
        "privacy": {"name": "none"},
        "compression": {"name": "none"},
        "protection": {"name": "plain"},
        "selection": {"metric": f"val/{TASKS[task].primary_metric}"},
    }
    if described is not None:
        value["data"]["described"] = described.model_dump(mode="json")
    if task == "segmentation":
        value["model"] = {"name": "unet"}
    return value


FACTS = ("site", "training", "validation", "test", "patients")


def counts(looked: Looked) -> list[tuple[str, ...]]:
    """A row for each site: its cases of each split, and its patients."""
    return [
        (
            site,
            *(str(len(looked.partition.sites[site][split])) for split in SPLITS),
            str(len({case.patient for case in cases})) if cases else "-",
        )
        for site, cases in ((site, _cases(looked, site)) for site in looked.partition.sites)
    ]


def facts(looked: Looked) -> list[str]:
    """A sentence for each site: its labels, the spacings and the shapes of its images."""
    return [f"{site}: {_facts_of(looked, site)}" for site in looked.partition.sites]


def identifiers(looked: Looked) -> list[str]:
    """A sentence for each site with DICOM: which attributes identify patients, and no value."""
    return [
        f"{site}: {_identifiers_in(found)}"
        for site in looked.partition.sites
        if (found := [identifying(path) for path in _dicom(looked, site)])
    ]


def _dicom(looked: Looked, site: str) -> list[Path]:
    """The images of a site that are DICOM, a file or the folder of series each, and each once."""
    paths = [
        path
        for case in _cases(looked, site)
        for path in (case.images if isinstance(case, CaseFiles) else (Path(case.where),))
    ]
    return list(dict.fromkeys(split_series(path)[0] for path in paths if is_dicom(path)))


def _identifiers_in(found: list[Identifying]) -> str:
    attributes: Counter[str] = Counter()
    for each in found:
        attributes.update(each.attributes)
    named = ", ".join(f"{name} ({count})" for name, count in sorted(attributes.items()))
    said = [
        f"{sum(each.files for each in found)} DICOM files; of these have a value "
        f"{named or 'no attributes that identify patients'}"
    ]
    told = {
        "have private attributes, of which nobody knows what they hold": "private",
        "say that their pixels name somebody": "burned_in",
        "may name somebody in their pixels": "perhaps_burned_in",
        "have drawings over the image": "overlays",
    }
    for what, field in told.items():
        if count := sum(getattr(each, field) for each in found):
            said.append(f"{count} {what}")
    return "; ".join(said)


def _cases(looked: Looked, site: str) -> list[Any]:
    """The cases or origins of a site; none where the data set does not tell of single cases."""
    known = looked.dataset.origins if isinstance(looked.dataset, Dataset) else looked.dataset.cases
    splits = looked.partition.sites[site]
    return [known[split][index] for split in SPLITS for index in splits[split]] if known else []


def _facts_of(looked: Looked, site: str) -> str:
    dataset, cases = looked.dataset, _cases(looked, site)
    if isinstance(dataset, Dataset):
        splits = looked.partition.sites[site]
        own = np.concatenate([dataset.labels[split][list(splits[split])] for split in SPLITS])
        labels = [LABELLINGS[dataset.info.task].told(own, dataset.info)]
        files = [Path(case.where) for case in cases]
    else:
        labels = [*_labels(dataset.family, cases)]
        files = [case.images[0] for case in cases]
    described = looked.experiment.data.described
    rules = dicom_rules(described) if described else STRICT
    return "; ".join([", ".join(labels), *_grids(files, rules)])


def _labels(family: Family, cases: list[CaseFiles]) -> Iterator[str]:
    """For each label, in how many cases it is and the median number of its voxels there."""
    voxels: dict[int, list[int]] = {}
    for case in cases:
        try:
            # With its images: contours and segments have no grid of their own.
            _, mask = read_case(case)
        except ConsiliumError:
            continue  # validation says why
        if mask is None:
            continue
        values, counts = np.unique(mask.values, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            voxels.setdefault(family.label_of(value), []).append(count)
    for label, name in enumerate(family.labels[1:], start=1):
        found = voxels.get(label, [])
        size = int(np.median(found)) if found else 0
        yield f"{name} in {len(found)} cases with a median of {size} voxels"


def _grids(files: list[Path], dicom: DicomRules) -> Iterator[str]:
    """The least and the largest spacing and shape of images, along each axis."""
    grids = []
    for path in files:
        try:
            grids.append(case_grid(path, dicom))
        except ConsiliumError:
            continue  # validation says why
    if not grids:
        return
    if len(grids[0].shape) == 3:
        yield f"spacing {_range(np.array([grid.spacing for grid in grids]))} mm"
    yield f"shape {_range(np.array([grid.shape for grid in grids]))}"


def _range(values: Any) -> str:
    """The least and the largest of each axis, as ``31-43 x 40-59 x 24-47``."""
    ends = zip(values.min(axis=0), values.max(axis=0), strict=True)
    axes = [list(dict.fromkeys((f"{low:.3g}", f"{high:.3g}"))) for low, high in ends]
    return " x ".join("-".join(axis) for axis in axes)


def write_sheet(looked: Looked, out: Path) -> Path:
    """Write the thumbnails into a folder.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    require_writable(out, "of --out", private=False)
    with atomic_path(out / SHEET) as temporary:
        temporary.write_bytes(contact_sheet(looked.dataset, looked.partition))
    return out / SHEET


def verdict(folder: Path, out: Path) -> list[str]:
    """The last lines on data that break no rule: what nobody has settled yet is no good news."""
    report = f"the report is {out}/data_docs/index.html"
    path = folder / DESCRIPTION
    doubts = open_doubts(path.read_text(encoding="utf-8")) if path.is_file() else []
    if not doubts:
        return [f"nothing is wrong with these data; {report}"]
    is_open = "1 thing is" if len(doubts) == 1 else f"{len(doubts)} things are"
    return [
        f"these data break no rule of validation; {report}",
        f"{is_open} still open, which `consilium data init` could not tell and no rule can. Settle "
        f"each, and take its line out of {path}:",
        *(f"- {doubt}" for doubt in doubts),
    ]


def written_to(out: Path) -> str:
    """Where the thumbnails and the report lie, and that they are about patients."""
    return (
        f"thumbnails: {out.resolve() / SHEET}; they show patients, and the report beside them, in "
        f"{out.resolve() / 'data_docs'}, names cases: keep both where the images may be, and do "
        "not commit them"
    )


def described_by(folder: Path) -> str:
    """Where the description of a folder is from, and the values that it has."""
    name, root = folder.resolve().name, folder.resolve().parent
    described = find_description(name, root)
    if described is None:
        return f"{name} is a set that the project knows"
    own = (folder / DESCRIPTION).is_file() or (folder / "dataset.json").is_file()
    return f"described by {'its own file' if own else 'the project'}: {_said(described)}"


def _said(described: Description) -> str:
    spacing = "" if described.kind == "pictures" else f", spacing {described.spacing}"
    labels = ", ".join(described.classes)
    return f"{described.task} of {described.kind}, {labels}; shape {described.shape}{spacing}"
