"""evaluate: predict a site's validation and test cases; measure what all sites have sent.

With ``evaluation.share=sums`` a site sends a part of a secure sum, and the coordinator measures
that sum alone; each site keeps its own metrics in its home.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.data.dataset import SPLITS, DatasetInfo, Split
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.mailbox import MissingMessageError
from federated.exchange.message import Topic
from federated.files import PRIVATE, write_json
from federated.learning import (
    Arrays,
    evaluate_shared,
    evaluate_summed,
    refuse_told,
    shared_arrays,
    summed_vector,
    task_of,
)
from federated.learning.evaluation import PREDICTS_NONE, Evaluation
from federated.run.result import stage_result
from federated.run.statistics_file import write_statistics
from federated.settings.sections import Parties
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter_evaluation
from federated.stages.named_sums import EVALUATION, open_sum
from federated.stages.report import tell
from federated.stages.secure_sum import collect, send_part
from federated.stages.site import Site, SiteCall, open_evaluation, open_site
from federated.stages.site_model import own_weights
from federated.stages.worker import site_cases, worker_context
from federated.update import RoundState

# What a site sends in place of its evaluation of a model that predicts no finite numbers.
NO_NUMBERS: Final = b"no numbers"


class NoNumbersError(ConsiliumError):
    """A model that predicts what is no finite number."""


def evaluate_site(call: SiteCall, round_number: int) -> None:
    """Predict the site's validation and test cases with the weights it has after a round.

    What it sends of them is what ``evaluation.share`` says; the predictions are written nowhere
    else. The site's own metrics stay in its home. Of a model that predicts no finite numbers it
    says so instead: that is not the site's fault, and another round may mend it.

    Raises:
        ConsiliumError: a budget does not allow it.
    """
    started = time.time()
    site = open_site(call)
    context = worker_context(site)
    if context.experiment.evaluation.share == "sums":
        _evaluate_in_sum(site, round_number, started)
        return
    state, topic, _ = open_evaluation(site, round_number)
    try:
        body = pack_shared(site, _predicted(site, round_number, state))
    except NoNumbersError:
        body = NO_NUMBERS
    site.to_coordinator(topic, kinds.EVALUATION, body)
    tell(site, round_number, stage_result(site.name, "evaluate", started))


def pack_shared(site: Site, predictions: Mapping[Split, Arrays]) -> bytes:
    """What a site tells of what it has predicted of its validation and test cases."""
    context = worker_context(site)
    settings = context.experiment.evaluation
    arrays = {
        f"{split}.{name}": np.ascontiguousarray(values)
        for split, found in predictions.items()
        for name, values in shared_arrays(context.task, found, context.info, settings).items()
    }
    content: bytes = save(arrays)
    return content


def _evaluate_in_sum(site: Site, round_number: int, started: float) -> None:
    context = worker_context(site)
    opened = open_sum(site, round_number, EVALUATION.name)
    sent, received = 0, 0
    try:
        predictions = _predicted(site, round_number, opened.context.state)
    except NoNumbersError:
        sent = site.to_coordinator(opened.topic, kinds.EVALUATION, NO_NUMBERS)
    else:
        vector = summed_vector(context.task, predictions, context.info)
        sent, received = send_part(site, opened, vector)
    result = stage_result(site.name, "evaluate", started, sent=sent, received=received)
    tell(site, round_number, result)


def _predicted(site: Site, round_number: int, state: RoundState) -> dict[Split, Arrays]:
    """What a state's model predicts, once the ledger has it; the metrics of it stay at the site."""
    context = worker_context(site)
    enter_evaluation(site, round_number)
    state.layout.load(context.model, own_weights(site, state))
    predictions = predict_splits(site)
    own = {s: context.task.exact(found, context.info) for s, found in predictions.items()}
    write_json(site.store.evaluation_path(round_number), own, PRIVATE)
    return predictions


def predict_splits(site: Site) -> dict[Split, Arrays]:
    """What the worker's model, as it is, predicts of the site's validation and test cases.

    Raises:
        NoNumbersError: a prediction is not a finite number.
    """
    context = worker_context(site)
    device = next(context.model.parameters()).device
    predictions: dict[Split, Arrays] = {}
    for split in SPLITS[1:]:
        cases = site_cases(site, split)
        found = context.task.predict(context.model, cases, device, context.info)
        if not all(np.isfinite(values).all() for values in found.values()):
            raise NoNumbersError(f"{site.name}: {PREDICTS_NONE}")
        predictions[split] = found
    return predictions


def without_numbers(coordinator: Coordinator, topic: Topic, sites: Sequence[str]) -> dict[str, str]:
    """Which sites say that the model predicts no numbers there, so that they add nothing to a sum.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        sites: those that were asked.
    """
    said: dict[str, str] = {}
    for site in sites:
        with suppress(MissingMessageError):
            coordinator.mailbox.receive(topic, kinds.EVALUATION, site, len(NO_NUMBERS))
            said[site] = PREDICTS_NONE
    return said


def read_shared(content: bytes, site: str) -> dict[Split, Arrays]:
    """What a site has sent of its evaluation, for each split.

    Raises:
        NoNumbersError: it is that the model predicts no numbers there.
        ConsiliumError: it is something else.
    """
    if content == NO_NUMBERS:
        raise NoNumbersError(PREDICTS_NONE)
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
    coordinator: Coordinator,
    topic: Topic,
    sites: list[str],
    info: DatasetInfo,
    opener: str | None = None,
) -> Evaluation:
    """Metrics from what the sites have sent, which ``evaluation.share`` decides.

    What has not arrived, or can be the evaluation of no such cases, is left out: the metrics are
    those of the other sites, and ``missing`` of the evaluation says whose cases are not in them.
    There are no metrics where all that is told is that the model predicts no numbers, nor where no
    site of a consortium was there.

    What is known of the test cases of all sites together is kept in the round's folder.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to; of the opened sum, where there is one.
        sites: those that were asked, or are in the sum.
        info: of the data set.
        opener: the site that has opened the sum, where there is a key.

    Raises:
        ConsiliumError: no site has sent anything that counts, and they are no parties of their own.
    """
    found = _evaluate(coordinator, topic, sites, info, opener)
    path = coordinator.folder.statistics_path(topic.round)
    write_statistics(path, found.statistics.get("test"))
    return found


def _evaluate(
    coordinator: Coordinator,
    topic: Topic,
    sites: list[str],
    info: DatasetInfo,
    opener: str | None,
) -> Evaluation:
    """What :func:`evaluate` gives, before any of it is written."""
    run, missing = coordinator.run, dict[str, str]()
    settings = run.experiment.evaluation
    task = task_of(info, settings)
    if topic.sum:
        total = collect(coordinator, topic, info, sites, opener)
        return evaluate_summed(task, total, info, run.counts, sites, settings)
    numberless = False

    def counted() -> Iterator[tuple[str, dict[Split, Arrays]]]:
        """What counts of what the sites have sent, one after the other."""
        nonlocal numberless
        for site in sites:
            try:
                message = coordinator.mailbox.receive(
                    topic, kinds.EVALUATION, site, kinds.MOST_EVALUATION
                )
                told = read_shared(message.body, site)
                refuse_told(task, told, info, settings, run.counts.sites[site], site)
            except ConsiliumError as error:
                numberless |= isinstance(error, NoNumbersError)
                missing[site] = str(error)
                coordinator.note_left_out(topic, site, str(error))
            else:
                yield site, told

    rest = counted()
    first = next(rest, None)
    if first is None and (numberless or isinstance(run.experiment.runner, Parties)):
        return Evaluation({}, {}, {}, {}, missing=missing)
    if first is None:
        raise ConsiliumError(
            f"No site has evaluated the model after round {topic.round}, so it has no metrics. "
            f"{' '.join(missing.values())}"
        )
    found = evaluate_shared(task, chain([first], rest), info, settings)
    return replace(found, missing=missing)
