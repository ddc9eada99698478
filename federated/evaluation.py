"""How good a model is: over the cases of all sites together, and at each site."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from federated.config import Experiment
from federated.data.dataset import SPLITS, Labels, Split
from federated.data.load import load
from federated.data.prepared import PreparedFolder
from federated.data.scanner import site_images
from federated.errors import ConsiliumError
from federated.metrics import (
    Confusion,
    Metrics,
    Probabilities,
    classification_metrics,
    confusion_matrix,
)
from federated.model_file import load_model, read_header
from federated.training import predict

Predictions = Mapping[str, Mapping[Split, tuple[Labels, Probabilities]]]
Spread = dict[str, Metrics]

# Metrics of which larger is better, and whose spread over sites is told.
SPREAD = ("auc", "accuracy", "balanced_accuracy", "f1")


@dataclass(frozen=True)
class Evaluation:
    """Metrics over the cases of all sites together (``overall``), and at each site.

    ``spread`` tells how fair the model is: over the sites where a metric has a value, ``worst``,
    ``mean`` and ``sd`` (the population's standard deviation), sites counting alike. ``confusion``
    are counts ``[true][predicted]`` over all cases.
    """

    overall: Mapping[Split, Metrics]
    per_site: Mapping[str, Mapping[Split, Metrics]]
    spread: Mapping[Split, Mapping[str, Metrics]]
    confusion: Mapping[Split, Confusion]


def spread_over_sites(per_site: Mapping[str, Mapping[Split, Metrics]], split: Split) -> Spread:
    """Worst, mean and standard deviation over the sites, for each of :data:`SPREAD`."""
    result = {}
    for name in SPREAD:
        found = [metrics[split][name] for metrics in per_site.values()]
        values = [value for value in found if value is not None]
        result[name] = {
            "worst": min(values) if values else None,
            "mean": float(np.mean(values)) if values else None,
            "sd": float(np.std(values)) if values else None,
        }
    return result


def score(predictions: Predictions) -> Evaluation:
    """Metrics from labels ``(n,)`` and probabilities ``(n, classes)`` per site and split."""
    overall: dict[Split, Metrics] = {}
    confusion: dict[Split, Confusion] = {}
    for split in SPLITS[1:]:
        parts = [by_split[split] for by_split in predictions.values()]
        labels = np.concatenate([labels for labels, _ in parts])
        probabilities = np.concatenate([probabilities for _, probabilities in parts])
        overall[split] = classification_metrics(labels, probabilities)
        confusion[split] = confusion_matrix(labels, probabilities)
    per_site = {
        site: {split: classification_metrics(*by_split[split]) for split in SPLITS[1:]}
        for site, by_split in predictions.items()
    }
    spread = {split: spread_over_sites(per_site, split) for split in SPLITS[1:]}
    return Evaluation(overall, per_site, spread, confusion)


def evaluate_file(experiment: Experiment, prepared: PreparedFolder, model_path: Path) -> Evaluation:
    """Evaluate a model file on an experiment's prepared validation and test cases.

    Raises:
        ConsiliumError: no such model, or one for other images than the experiment's.
    """
    header = read_header(model_path)
    if (header.dataset, header.size) != (experiment.data.dataset, experiment.data.size):
        raise ConsiliumError(
            f"The model {model_path} was trained on {header.dataset} at size {header.size}, but "
            f"experiment {experiment.name} is on {experiment.data.dataset} at size "
            f"{experiment.data.size}. Give a model of this experiment."
        )
    dataset = load(prepared.data(), experiment.data)
    excluded = prepared.excluded_sites()
    partition = prepared.partition()
    device = torch.device("cpu")
    predictions: dict[str, dict[Split, tuple[Labels, Probabilities]]] = {}
    for site in partition.sites:
        if site in excluded:
            continue
        predictions[site] = {}
        model = load_model(model_path, site)
        for split in SPLITS[1:]:
            images, labels = site_images(experiment, dataset, partition, site, split)
            probabilities = predict(model, images, device, header.classes)
            predictions[site][split] = (labels, probabilities)
    return score(predictions)
