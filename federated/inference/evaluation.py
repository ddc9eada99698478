"""Evaluation of a model file on an experiment's prepared cases."""

from collections.abc import Collection
from pathlib import Path

import torch

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS, Split
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError
from federated.learning import Arrays, evaluate_here, task_of
from federated.learning.evaluation import Evaluation
from federated.settings.sections import DataSettings
from federated.site.holder import enter_file_evaluation
from federated.weights.model_file import ModelHeader, load_model, read_header


def experiment_of(experiment: Experiment, model_path: Path) -> Experiment:
    """An experiment with what was planned of the run that a model comes from.

    What is ``auto`` in an experiment is told by the header of a model of it; all else has to be as
    it was when the model was trained.

    Raises:
        ConsiliumError: there is no such model, or it is for other images than the experiment's.
    """
    header = read_header(model_path)
    data = experiment.data
    size = data.size if header.size else None
    described = data.described.of_model() if data.described else None
    if (header.dataset, header.size, header.described) != (data.dataset, size, described):
        raise ConsiliumError(
            f"The model {model_path} was trained on {header.dataset} at size {header.size}, but "
            f"experiment {experiment.name} is on {data.dataset} at size {size}"
            + (", as its dataset.yaml describes it now" if header.described != described else "")
            + ". Give a model of this experiment."
        )
    seen: dict[str, tuple[str, object]] = {
        "data.spacing": ("spacing", header.spacing),
        "data.patch": ("patch", header.patch),
        "data.landmarks": ("landmarks", header.landmarks),
    }
    planned = dict(each for key, each in seen.items() if key in experiment.planning.auto)
    prepared_as = data.model_copy(update=planned)
    _refuse_other_voxels(header, experiment.name, prepared_as, model_path)
    return experiment.model_copy(update={"data": prepared_as})


def evaluate_file(
    experiment: Experiment,
    dataset: AnyDataset,
    partition: Partition,
    excluded: Collection[str],
    model_path: Path,
) -> Evaluation:
    """Evaluate a model file on the sites' validation and test cases.

    The metrics are those that a run would have, with what ``evaluation.share`` lets sites send.
    What the sites let the model see is entered in their ledger first.

    Args:
        experiment: that of :func:`experiment_of`.
        dataset: its cases.
        partition: those of each site.
        excluded: the sites that are left out, since their data have failed validation.
        model_path: the model.

    Raises:
        ConsiliumError: the model cannot be used, or a budget does not allow it.
    """
    cases = experiment_cases(experiment, dataset, partition)
    task = task_of(dataset.info, experiment.evaluation)
    device = torch.device("cpu")
    predictions: dict[str, dict[Split, Arrays]] = {}
    for site in cases.partition.sites:
        if site in excluded:
            continue
        records = [record for split in SPLITS[1:] for record in cases.records([site], split)]
        enter_file_evaluation(experiment, site, records)
        model = load_model(model_path, site)
        predictions[site] = {
            split: task.predict(model, cases.of(site, split), device, dataset.info)
            for split in SPLITS[1:]
        }
    return evaluate_here(task, predictions, dataset.info, experiment.evaluation)


def _refuse_other_voxels(
    header: ModelHeader, name: str, data: DataSettings, model_path: Path
) -> None:
    """Refuse a model that has learned from the same images on other voxels or another scale.

    Raises:
        ConsiliumError: it has; its scores would be those of images that it does not know.
    """
    differing = [
        f"data.{key} was {getattr(header, key)} and is {getattr(data, key)}"
        for key in ("spacing", "patch", "harmonise", "landmarks")
        if getattr(header, key) != getattr(data, key)
    ]
    if differing:
        raise ConsiliumError(
            f"The model {model_path} was trained on images of {header.dataset} that were prepared "
            f"in another way than experiment {name} prepares them: "
            f"{'; '.join(differing)}. Give the settings of its run, or a model of this experiment."
        )
