"""Which family a data set is: one that has a module, or one that a description makes."""

from federated.data.dataset import TaskName
from federated.data.folders.described.family import described_family
from federated.data.folders.families import FAMILIES, Family
from federated.data.medmnist.files import DATASETS, dataset_info
from federated.settings.description import Description


def family_of(name: str, described: Description | None) -> Family | None:
    """The segmentation set of that name; ``None`` for sets whose images have labels.

    Args:
        name: the data set's.
        described: what its ``dataset.yaml`` says, where it has one.
    """
    if described is None:
        return FAMILIES.get(name)
    return described_family(name, described) if described.segments else None


def task_name(name: str, described: Description | None) -> TaskName:
    """What is learned of a data set; classification where nothing is known of it.

    Args:
        name: the data set's.
        described: what its ``dataset.yaml`` says, where it has one.
    """
    if described is not None:
        return described.task
    if name in DATASETS:
        return dataset_info(name).task
    return "segmentation" if name in FAMILIES else "classification"
