"""From settings to images: find, download or generate a set's file, and read it."""

from federated.config import DataSettings
from federated.data import medmnist, phantom
from federated.data.dataset import Dataset, LocatedFile
from federated.errors import ConsiliumError


def locate(settings: DataSettings) -> LocatedFile:
    """Find the file of a data set, or get it as ``settings.source`` allows.

    ``medmnist``: the published file, from this machine or downloaded. ``files``: a file of that
    name on this machine, whatever its MD5. ``phantom``: generated. ``auto``: as ``medmnist``, but
    a phantom where the published file is not to be had; the result's ``source`` says so.

    Raises:
        ConsiliumError: the file is not to be had, or is not what it should be.
    """
    if settings.source == "phantom":
        return _phantom(settings)
    if found := locate_local(settings):
        return found
    if settings.source == "files":
        places = medmnist.candidate_paths(settings.dataset, settings.size, settings.root)
        raise ConsiliumError(
            f"data.source=files, but there is no {' and no '.join(map(str, places))}. Put the file "
            "there, or name the folder above `medmnist/` with data.root or CONSILIUM_DATA."
        )
    try:
        return medmnist.download(settings.dataset, settings.size, settings.root)
    except ConsiliumError:
        if settings.source != "auto":
            raise
        return _phantom(settings)


def locate_local(settings: DataSettings) -> LocatedFile | None:
    """Find the file of a data set on this machine, without making or downloading it."""
    official = settings.source != "files"
    return medmnist.find(settings.dataset, settings.size, settings.root, official=official)


def _phantom(settings: DataSettings) -> LocatedFile:
    info = medmnist.dataset_info(settings.dataset)
    return phantom.materialise(info, settings.size, settings.phantom_seed, settings.root)


def load(located: LocatedFile, settings: DataSettings) -> Dataset:
    """Read a located file and check every array against the set's schema."""
    return medmnist.read(located.path, medmnist.dataset_info(settings.dataset), settings.size)
