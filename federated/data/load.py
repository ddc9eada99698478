"""From settings to images: find, download or generate a set's file or folder, and read it."""

from federated.data.dataset import LocatedFile, TaskName
from federated.data.folders import dataset as folder_dataset
from federated.data.folders.families import FAMILIES
from federated.data.medmnist import files as medmnist
from federated.data.medmnist import phantom
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings


def locate(settings: DataSettings, *, download: bool = True) -> LocatedFile:
    """Find the file or folder of a data set, or get it as ``settings.source`` allows.

    ``medmnist`` is the published file, from this machine or downloaded. ``files`` is a file of that
    name, or a folder of a segmentation set, on this machine, whatever its MD5. ``phantom`` is
    generated. ``auto`` is the published file or the folder, or a phantom where that cannot be had;
    the result's ``source`` says which. Without ``download``, the published file has to be here.

    Raises:
        ConsiliumError: the file cannot be had, or is not what it should be.
    """
    if settings.source == "phantom":
        return _phantom(settings)
    if found := locate_local(settings):
        return found
    if not download or settings.source == "files" or settings.dataset in FAMILIES:
        if settings.source != "auto":
            raise ConsiliumError(missing(settings))
        return _phantom(settings)
    try:
        return medmnist.download(settings.dataset, settings.size, settings.root)
    except ConsiliumError:
        if settings.source != "auto":
            raise
        return _phantom(settings)


def locate_local(settings: DataSettings) -> LocatedFile | None:
    """Find the file of a data set on this machine, without making or downloading it.

    Raises:
        ConsiliumError: the file is there, but is not the published one.
    """
    if settings.dataset in FAMILIES:
        return folder_dataset.find_folder(settings.dataset, settings.root)
    official = settings.source != "files"
    return medmnist.find(settings.dataset, settings.size, settings.root, official=official)


def task_name(settings: DataSettings) -> TaskName:
    """What the data set is for, without its files; classification where it is not known."""
    if settings.dataset in FAMILIES:
        return "segmentation"
    known = settings.dataset in medmnist.DATASETS
    return medmnist.dataset_info(settings.dataset).task if known else "classification"


def missing(settings: DataSettings) -> str:
    """The message that a file or folder is not on this machine, and what to do."""
    if family := FAMILIES.get(settings.dataset):
        places = folder_dataset.candidate_folders(family.name, settings.root)
        return (
            f"data.source={settings.source}, but there is no folder "
            f"{' and no '.join(map(str, places))}. Put the files of {family.source} there, as "
            f"{family.layout}; or name the folder above with data.root or CONSILIUM_DATA; or try "
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


def _phantom(settings: DataSettings) -> LocatedFile:
    if family := FAMILIES.get(settings.dataset):
        return folder_dataset.materialise(family, settings.phantom_seed, settings.root)
    info = medmnist.dataset_info(settings.dataset)
    return phantom.materialise(info, settings.size, settings.phantom_seed, settings.root)


def load(located: LocatedFile, settings: DataSettings) -> AnyDataset:
    """Read a located file and check every array against the set's schema; or list a folder.

    Raises:
        ConsiliumError: the file or folder cannot be used.
    """
    if settings.dataset in FAMILIES:
        return folder_dataset.read_folder(located.path, settings.dataset, settings.spacing)
    return medmnist.read(located.path, medmnist.dataset_info(settings.dataset), settings.size)
