"""evaluate: predict a site's validation and test cases; measure what all sites have sent."""

import time

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.learning import Arrays, evaluate_shared, shared_arrays, task_of
from federated.learning.evaluation import Evaluation
from federated.run.result import stage_result
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter_evaluation
from federated.stages.report import tell
from federated.stages.site import Site, SiteCall, open_evaluation, open_site
from federated.stages.site_model import own_weights
from federated.stages.worker import site_cases, worker_context


def evaluate_site(call: SiteCall, round_number: int) -> None:
    """Predict the site's validation and test cases with the weights it has after a round.

    What it sends of them is what ``evaluation.share`` says; the predictions are written nowhere
    else.

    Raises:
        ConsiliumError: a budget does not allow it, or the model predicts no finite numbers.
    """
    started = time.time()
    site = open_site(call)
    context = worker_context(site)
    state, topic = open_evaluation(site, round_number)
    enter_evaluation(site, round_number)
    state.layout.load(context.model, own_weights(site, state))
    site.to_coordinator(topic, kinds.EVALUATION, pack_shared(site))
    tell(site, round_number, stage_result(site.name, "evaluate", started))


def pack_shared(site: Site) -> bytes:
    """What a site tells of the worker's model, as it is, on its validation and test cases.

    Raises:
        ConsiliumError: a prediction is not a finite number.
    """
    context = worker_context(site)
    arrays = {
        f"{split}.{name}": np.ascontiguousarray(values)
        for split, found in predict_splits(site).items()
        for name, values in shared_arrays(
            context.task, found, context.info, context.experiment.evaluation
        ).items()
    }
    content: bytes = save(arrays)
    return content


def predict_splits(site: Site) -> dict[Split, Arrays]:
    """What the worker's model, as it is, predicts of the site's validation and test cases.

    Raises:
        ConsiliumError: a prediction is not a finite number.
    """
    context = worker_context(site)
    device = next(context.model.parameters()).device
    predictions: dict[Split, Arrays] = {}
    for split in SPLITS[1:]:
        cases = site_cases(site, split)
        found = context.task.predict(context.model, cases, device, context.info)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise ConsiliumError(
                f"The model predicts no numbers at {site.name}: training diverged. Lower "
                "training.lr, or strategy.server_lr where the strategy has one."
            )
        predictions[split] = found
    return predictions


def read_shared(content: bytes, site: str) -> dict[Split, Arrays]:
    """What a site has sent of its evaluation, for each split.

    Raises:
        ConsiliumError: it is something else.
    """
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ConsiliumError(
            f"What {site} has sent of its evaluation cannot be read ({error!r:.100}). Resume the "
            "run to have it sent again."
        ) from error
    return {
        split: {
            name.removeprefix(f"{split}."): values
            for name, values in arrays.items()
            if name.startswith(f"{split}.")
        }
        for split in SPLITS[1:]
    }


def evaluate(
    coordinator: Coordinator, topic: Topic, sites: list[str], info: DatasetInfo
) -> Evaluation:
    """Metrics from what the sites have sent, which ``evaluation.share`` decides.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to.
        sites: those that were asked.
        info: of the data set.

    Raises:
        ConsiliumError: what a site has sent is missing, damaged or of another form.
    """
    most, receive = kinds.MOST_EVALUATION, coordinator.mailbox.receive
    sent = {site: receive(topic, kinds.EVALUATION, site, most).body for site in sites}
    shared = {site: read_shared(content, site) for site, content in sent.items()}
    return evaluate_shared(task_of(info), shared, info, coordinator.run.experiment.evaluation)
