"""From settings to images: find, download or generate a set's file or folder, and read it."""

import sys
from functools import lru_cache
from pathlib import Path

from federated.data.dataset import SPLITS, DatasetInfo, LocatedFile, Split
from federated.data.family_of import family_of
from federated.data.folders import dataset as folder_dataset
from federated.data.folders.described.arrays import read_own_arrays
from federated.data.folders.described.family import described_family, layout
from federated.data.folders.described.labelled import labelled_info, read_labelled
from federated.data.folders.families import FAMILIES, Family
from federated.data.folders.harmonised_family import harmonised
from federated.data.medmnist import files as medmnist
from federated.data.medmnist import phantom
from federated.data.partitioning import AnyDataset
from federated.data.site_cases import Listed
from federated.errors import ConsiliumError
from federated.settings.description import Description
from federated.settings.sections import DataSettings


def locate(settings: DataSettings, *, download: bool = True) -> LocatedFile:
    """Find the file or folder of a data set, or get it as ``settings.source`` allows.

    ``medmnist`` is the published file, from this machine or downloaded. ``files`` is a file of that
    name, or the folder of a family or of a described set, on this machine, whatever its MD5.
    ``phantom`` is generated. ``auto`` is the published file or the folder, or a phantom where that
    cannot be had; the result's ``source`` says which. Without ``download``, the published file has
    to be here.

    Raises:
        ConsiliumError: the file cannot be had, or is not what it should be.
    """
    if settings.source == "phantom":
        return _phantom(settings)
    if found := locate_local(settings):
        return found
    if not download or settings.source == "files" or _is_folder(settings):
        if settings.source != "auto":
            raise ConsiliumError(missing(settings))
        return _phantom(settings)
    try:
        return medmnist.download(settings.dataset, settings.size, settings.root)
    except ConsiliumError as error:
        if settings.source != "auto":
            raise
        _tell_once(f"Note: {error} Going on with generated images, as data.source=auto has it.")
        return _phantom(settings)


@lru_cache
def _tell_once(text: str) -> None:
    """Say something on standard error, once in a process."""
    print(text, file=sys.stderr, flush=True)


def locate_local(settings: DataSettings) -> LocatedFile | None:
    """Find the file of a data set on this machine, without making or downloading it.

    Raises:
        ConsiliumError: the file is there, but is not the published one.
    """
    if _is_folder(settings):
        return folder_dataset.find_folder(folder_name(settings), settings.root)
    official = settings.source != "files"
    return medmnist.find(settings.dataset, settings.size, settings.root, official=official)


def missing(settings: DataSettings) -> str:
    """The message that a file or folder is not on this machine, and what to do."""
    if _is_folder(settings):
        places = folder_dataset.candidate_folders(folder_name(settings), settings.root)
        what, form = _source_and_layout(settings)
        return (
            f"data.source={settings.source}, but there is no folder "
            f"{' and no '.join(map(str, places))}. Put the files of {what} there, as "
            f"{form}; or name the folder above with data.root or CONSILIUM_DATA; or try "
            "it on generated images with data.source=phantom."
        )
    files = medmnist.candidate_paths(settings.dataset, settings.size, settings.root)
    downloads = settings.source == "medmnist"
    return (
        f"data.source={settings.source}, but there is no {' and no '.join(map(str, files))}. Put "
        "the file there, or name the folder above `medmnist/` with data.root or CONSILIUM_DATA; "
        + ("or let `consilium prepare` download it; " if downloads else "")
        + "or try it on generated images with data.source=phantom."
    )


def _is_folder(settings: DataSettings) -> bool:
    return settings.described is not None or settings.dataset in FAMILIES


def folder_name(settings: DataSettings) -> str:
    """The name of the folder that a set which is a folder of files is looked for in."""
    described = settings.described
    return (described.folder if described else None) or settings.dataset


def _source_and_layout(settings: DataSettings) -> tuple[str, str]:
    if described := settings.described:
        return described.source or described.title or settings.dataset, layout(described)
    family = FAMILIES[settings.dataset]
    return family.source, family.layout


def _phantom(settings: DataSettings) -> LocatedFile:
    if described := settings.described:
        from federated.data.folders.described.phantom import materialise_described

        seed = settings.phantom_seed
        return materialise_described(settings.dataset, described, seed, settings.root)
    if family := FAMILIES.get(settings.dataset):
        return folder_dataset.materialise(family, settings.phantom_seed, settings.root)
    info = medmnist.dataset_info(settings.dataset)
    return phantom.materialise(info, settings.size, settings.phantom_seed, settings.root)


def known_info(settings: DataSettings) -> DatasetInfo:
    """What is known of a data set without its files; of a folder not how many cases it has."""
    nothing: dict[Split, int] = dict.fromkeys(SPLITS, 0)
    described = _description(settings, settings.source)
    if family := family_of(settings.dataset, described):
        return folder_dataset.folder_info(family, nothing)
    if described is not None:
        return labelled_info(described_family(settings.dataset, described), described, nothing)
    return medmnist.dataset_info(settings.dataset)


def _description(settings: DataSettings, source: str) -> Description | None:
    """What a set's files are described as; generated ones have a layout of their own."""
    if settings.described is None or source != "phantom":
        return settings.described
    from federated.data.folders.described.phantom import as_table

    return as_table(settings.described)


def load(located: LocatedFile, settings: DataSettings) -> AnyDataset:
    """Read a located file and check every array against the set's schema; or list a folder.

    Raises:
        ConsiliumError: the file or folder cannot be used.
    """
    described = _description(settings, located.source)
    if family := family_of(settings.dataset, described):
        return folder_dataset.read_family(located.path, as_set(family, settings))
    if described is not None:
        return _labelled(located.path, settings, described)
    return medmnist.read(located.path, medmnist.dataset_info(settings.dataset), settings.size)


def as_set(family: Family, settings: DataSettings) -> Family:
    """The family with the voxels and the scale of intensities that settings give it."""
    seen = family.with_spacing(settings.spacing).with_patch(settings.patch)
    if settings.harmonise == "nyul" and settings.landmarks is None:
        return seen  # they are still to be planned, before which nothing is trained
    return harmonised(seen, settings.harmonise, settings.landmarks)


def listed(located: LocatedFile, settings: DataSettings) -> Listed | None:
    """The files of a described set whose images are kept in memory; ``None`` for any other set.

    Raises:
        ConsiliumError: the folder is not what the description says.
    """
    described = _description(settings, located.source)
    if described is None or described.segments:
        return None
    if described.layout == "arrays":
        return None
    family = described_family(settings.dataset, described)
    cases = folder_dataset.found_cases(located.path, family).cases
    return Listed(family, {case.name: case for case in cases})


def _labelled(folder: Path, settings: DataSettings, described: Description) -> AnyDataset:
    if described.layout == "arrays":
        return read_own_arrays(folder, settings.dataset, described)
    family = described_family(settings.dataset, described).with_spacing(settings.spacing)
    return read_labelled(folder, family, described)
