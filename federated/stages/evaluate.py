"""evaluate: predict a site's validation and test cases; measure what all sites have sent."""

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path
from federated.learning import Arrays, evaluate_shared, shared_arrays, task_of
from federated.learning.evaluation import Evaluation
from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.update_files import read_arrays
from federated.stages.entering import enter_evaluation
from federated.stages.site_model import site_weights_after
from federated.stages.worker import site_cases, worker_context


def evaluate_site(run: Path, site: str, round_number: int) -> StageResult:
    """Predict the site's validation and test cases with the weights it has after a round.

    What it sends of them is what ``evaluation.share`` says; the predictions are written nowhere
    else.

    Raises:
        ConsiliumError: a budget does not allow it, or the model predicts no finite numbers.
    """
    started = time.time()
    folder, context = RunFolder(run), worker_context(run)
    enter_evaluation(run, site, round_number)
    state, weights = site_weights_after(folder, round_number, site)
    state.layout.load(context.model, weights)
    arrays = {
        f"{split}.{name}": values
        for split, found in predict_splits(run, site).items()
        for name, values in shared_arrays(
            context.task, found, context.info, context.experiment.evaluation
        ).items()
    }
    path = folder.site_path(round_number, site, "evaluation")
    with atomic_path(path, PRIVATE) as temporary:
        save_file(arrays, temporary)
    return stage_result(site, "evaluate", started)


def predict_splits(run: Path, site: str) -> dict[Split, Arrays]:
    """What the worker's model, as it is, predicts of the site's validation and test cases.

    Raises:
        ConsiliumError: a prediction is not a finite number.
    """
    context = worker_context(run)
    device = next(context.model.parameters()).device
    predictions: dict[Split, Arrays] = {}
    for split in SPLITS[1:]:
        cases = site_cases(run, site, split)
        found = context.task.predict(context.model, cases, device, context.info)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise ConsiliumError(
                f"The model predicts no numbers at {site}: training diverged. Lower training.lr, "
                "or strategy.server_lr where the strategy has one."
            )
        predictions[split] = found
    return predictions


def read_shared(folder: RunFolder, round_number: int, site: str) -> dict[Split, Arrays]:
    """What a site has sent of its evaluation, for each split.

    Raises:
        ConsiliumError: the file is missing or damaged.
    """
    arrays = read_arrays(folder.site_path(round_number, site, "evaluation"), "an evaluation")
    return {
        split: {
            name.removeprefix(f"{split}."): values
            for name, values in arrays.items()
            if name.startswith(f"{split}.")
        }
        for split in SPLITS[1:]
    }


def evaluate(
    folder: RunFolder, round_number: int, sites: Iterable[str], info: DatasetInfo
) -> Evaluation:
    """Metrics from what the sites have sent, which ``evaluation.share`` decides.

    Raises:
        ConsiliumError: what a site has sent is missing, damaged or of another form.
    """
    sent = {site: read_shared(folder, round_number, site) for site in sites}
    return evaluate_shared(task_of(info), sent, info, folder.experiment().evaluation)
