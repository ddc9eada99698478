"""Which settings go together: what is refused when the configuration is read, and why."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from federated.config_errors import closest
from federated.data.medmnist import DATASETS
from federated.errors import ConsiliumError

if TYPE_CHECKING:
    from federated.config import Experiment


def refuse(experiment: "Experiment", where: str) -> None:
    """Refuse an experiment whose sections do not go together.

    Raises:
        ConsiliumError: names the first two settings that do not, and what to change.
    """
    for reason in _reasons(experiment):
        raise ConsiliumError(f"Experiment {experiment.name} of {where} cannot be used: {reason}")
    try:
        experiment.protection.check(experiment.sites.asked, experiment.compression.bits)
    except ConsiliumError as error:
        raise ConsiliumError(
            f"Experiment {experiment.name} of {where} cannot be used: {error}"
        ) from error


def _reasons(experiment: "Experiment") -> Iterator[str]:
    dataset, model = experiment.data.dataset, experiment.model
    strategy, compression = experiment.strategy, experiment.compression
    protection = experiment.protection
    if dataset not in DATASETS:
        yield (
            f"data.dataset={dataset!r} is not known.{closest(dataset, DATASETS)} Known data sets: "
            f"{', '.join(DATASETS)}."
        )
    if model.name == "resnet3d" and not dataset.endswith("3d"):
        yield (
            f"model.name='resnet3d' takes volumes, but data.dataset={dataset!r} holds 2D images. "
            "Use model.name=small_cnn."
        )
    only_resnet = {"conv": model.conv != "3d", "stem": model.stem != 3}
    if model.name != "resnet3d" and any(only_resnet.values()):
        keys = " and ".join(f"model.{key}" for key, given in only_resnet.items() if given)
        yield (
            f"{keys} belongs to resnet3d, but model.name={model.name!r}. Set model.name=resnet3d, "
            "or leave it out."
        )
    if strategy.name in ("local", "central"):
        plain = compression.name == "none" and compression.bits is None
        if protection.name != "plain" or not plain:
            yield (
                f"strategy.name={strategy.name} is a baseline in which no site sends an update, so "
                "there is nothing to compress or protect. Set compression.name=none, without bits, "
                "and protection.name=plain."
            )
    if (protection.keyed or protection.masked) and not compression.same_positions:
        yield (
            f"compression.name={compression.name} lets every site choose its own positions, and "
            f"sums under protection.name={protection.name} add position by position. Use "
            "compression.name=shared_mask."
        )
    if (protection.keyed or protection.masked) and experiment.runner.name == "serial":
        yield (
            f"runner.name=serial runs sites and coordinator in one process, which would hold the "
            f"sites' keys; protection.name={protection.name} needs runner.name=processes or dask."
        )
