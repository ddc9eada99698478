"""The network of an experiment: as it begins, and what its file says of it."""

from torch import nn

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.data.labelling import LABELLINGS
from federated.randomness import derive_seed
from federated.weights.model_file import ModelHeader


def new_model(experiment: Experiment, info: DatasetInfo) -> nn.Module:
    """The experiment's network with its initial weights."""
    seed = derive_seed(experiment.seed, purpose="initial weights")
    return model_header(experiment, info, experiment.data.source).build(seed)


def model_header(experiment: Experiment, info: DatasetInfo, data_source: str) -> ModelHeader:
    """The header of a file with the experiment's network.

    Args:
        experiment: whose network it is.
        info: what is known of its data set.
        data_source: where the data really come from, as ``phantom``.
    """
    described = experiment.data.described
    return ModelHeader(
        experiment.model,
        channels=info.channels,
        classes=len(info.classes),
        dims=info.dims,
        size=experiment.data.size if info.task in LABELLINGS and not described else None,
        dataset=info.name,
        data_source=data_source,
        spacing=experiment.data.spacing,
        patch=experiment.data.patch,
        described=described.of_model() if described else None,
        harmonise=experiment.data.harmonise,
        landmarks=experiment.data.landmarks,
    )
