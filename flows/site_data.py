"""Which data sets a site of a consortium has, and whether they can be used."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from federated.configuration.description_file import find_description
from federated.data.folders.families import FAMILIES
from federated.data.load import load, locate_local
from federated.data.medmnist.files import DATASETS
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings


def data_lines(folder: Path, allowed: Sequence[str] | Literal["any"]) -> Iterator[tuple[bool, str]]:
    """For each data set that a site's policy allows, whether it is there, and what it has.

    Where the policy allows any, that is told of those that are there.
    """
    names = _there(folder) if allowed == "any" else list(allowed)
    if not names:
        yield False, f"there are no data sets in {folder}, or the policy allows none"
    for name in names:
        try:
            yield _line(folder, name, wanted=allowed != "any")
        except ConsiliumError as error:
            yield False, f"{name}: {error}"


def _there(folder: Path) -> list[str]:
    return [*DATASETS, *FAMILIES, *sorted(p.parent.name for p in folder.glob("*/dataset.yaml"))]


def _line(folder: Path, name: str, *, wanted: bool) -> tuple[bool, str]:
    described = None if name in DATASETS or name in FAMILIES else find_description(name, folder)
    settings = DataSettings(dataset=name, source="files", root=folder, described=described)
    found = locate_local(settings)
    if found is None:
        return not wanted, f"{name} is not in {folder}"
    counts = load(found, settings).info.cases
    told = ", ".join(f"{split} {count}" for split, count in counts.items())
    return True, f"{name} at {found.path}: cases {told}"
