"""Evaluation of a model file on an experiment's prepared cases."""

from pathlib import Path

import torch

from federated.configuration.cases import experiment_cases
from federated.configuration.experiment import Experiment
from federated.data.dataset import SPLITS, Split
from federated.data.load import load
from federated.errors import ConsiliumError
from federated.learning import Arrays, evaluate_here, task_of
from federated.learning.evaluation import Evaluation
from federated.run.prepared import PreparedFolder
from federated.site.holder import enter_file_evaluation
from federated.weights.model_file import load_model, read_header


def evaluate_file(experiment: Experiment, prepared: PreparedFolder, model_path: Path) -> Evaluation:
    """Evaluate a model file on an experiment's prepared validation and test cases.

    The metrics are those that a run would have, with what ``evaluation.share`` lets sites send.

    Raises:
        ConsiliumError: there is no such model, or it is for other images than the experiment's; or
            a budget does not allow it.
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
    seen = {"data.spacing": ("spacing", header.spacing), "data.patch": ("patch", header.patch)}
    # What was planned of a run is told by its model.
    planned = dict(each for key, each in seen.items() if key in experiment.planning.auto)
    dataset = load(prepared.data(), data.model_copy(update=planned))
    excluded = prepared.excluded_sites()
    cases = experiment_cases(experiment, dataset, prepared.partition())
    task = task_of(dataset.info)
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
