"""final-evaluation: what a site tells once, after the last round, of its test cases.

It is by the model that the run keeps, and of test cases alone: metrics by subgroups of patients,
and how far a segmentation changes with the image turned over. Told after every round it would say
more of each group, and help nobody: only one model is kept.

Guarantee. Of a site whose policy has a ``min_count`` no number of its test cases between 0 and that
follows from what it tells here beside what it has told of the same model
(:mod:`federated.learning.subgroup_suppression`); and of a data set it tells of one set of groups
alone, in whatever run (:mod:`federated.site.told_subgroups`). That is of one model: of the same
groups by the models of several runs, differences may be of few cases.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.data.dataset import DatasetInfo
from federated.data.subgroups import places_of
from federated.errors import ConsiliumError, RefusalError, unreadable
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.files import PRIVATE, read_json, write_json
from federated.learning.evaluation import PREDICTS_NONE
from federated.learning.final_task import final_task
from federated.learning.flip_statistics import predict_flips
from federated.learning.quantised_statistics import (
    refuse_inconsistent,
    summed_statistics,
    whole_statistics,
)
from federated.learning.statistics import EvaluationStatistics, from_wire, to_wire
from federated.learning.subgroup_statistics import (
    FinalSums,
    FinalTask,
    final_contradictions,
    final_of,
    final_of_sum,
    final_over_sites,
)
from federated.privacy.spending import FINAL, FINAL_SUMMED
from federated.run.result import stage_result
from federated.site.releases import weights_digest
from federated.site.told_subgroups import note_subgroups, refuse_other_subgroups
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter_evaluation
from federated.stages.evaluate import NO_NUMBERS
from federated.stages.named_sums import FINAL as FINAL_SUM
from federated.stages.named_sums import open_sum
from federated.stages.report import tell
from federated.stages.secure_sum import collect, send_part
from federated.stages.site import Site, SiteCall, open_end, open_site
from federated.stages.site_model import own_weights
from federated.stages.worker import held_cases, site_cases, worker_context
from federated.update import Arrays, RoundState


@dataclass(frozen=True)
class FinalOutcome:
    """What sites have told, over all of them, and why nothing of the others counts."""

    sums: FinalSums
    missing: Mapping[str, str]


def evaluate_at_end(call: SiteCall, round_number: int) -> None:
    """Send the coordinator what the run asks for at its end, by the model that it keeps.

    Where the model predicts no finite numbers of the site's cases, it says that instead.

    Raises:
        ConsiliumError: a budget or the site's policy does not allow it, it is not in the plan of
            the run, or other subgroups were told of the same data before.
    """
    site = open_site(call)
    experiment = site.run.experiment
    asked = experiment.evaluation
    if not asked.evaluates_at_end or asked.share == "sums":
        raise RefusalError(
            f"{site.name} tells nothing more of its test cases at the end of run "
            f"{site.run.run_id}: by its plan nothing is asked for then, or "
            "only in a sum over all sites."
        )
    _refuse_by_policy(site)
    refuse_other_subgroups(site.home, experiment)
    state, topic = open_end(site, round_number)
    _refuse_other_model(site, state)
    enter_evaluation(site, round_number, ("test",), FINAL)
    predictions = _predicted(site, state)
    body = NO_NUMBERS
    if all(np.isfinite(values).all() for values in predictions.values()):
        arrays = to_wire(_told(site, predictions))
        body = save({name: np.ascontiguousarray(each) for name, each in arrays.items()})
        note_subgroups(site.home, experiment)
    site.to_coordinator(topic, kinds.FINAL_EVALUATION, body)


def sum_at_end(call: SiteCall, round_number: int) -> None:
    """Send the site's part of a sum over all sites of what the run asks for at its end.

    Nothing is hidden in it: small counts are told in the sum alone. Of a model that predicts no
    finite numbers of the site's cases nothing is sent.

    Raises:
        ConsiliumError: as :func:`evaluate_at_end` does, or the model predicts no finite numbers.
    """
    started = time.time()
    site = open_site(call)
    experiment = site.run.experiment
    _refuse_by_policy(site)
    refuse_other_subgroups(site.home, experiment)
    opened = open_sum(site, round_number, FINAL_SUM.name)
    enter_evaluation(site, round_number, ("test",), FINAL_SUMMED)
    predictions = _predicted(site, opened.context.state)
    if not all(np.isfinite(values).all() for values in predictions.values()):
        raise ConsiliumError(f"{site.name}: {PREDICTS_NONE}")
    asked = final_task(worker_context(site).info, experiment.evaluation)
    form = asked.summed_form
    told = _told(site, predictions)
    vector = whole_statistics(EvaluationStatistics({n: told.arrays[n] for n in form}), form)
    note_subgroups(site.home, experiment)
    sent, received = send_part(site, opened, vector)
    result = stage_result(site.name, "evaluate", started, sent=sent, received=received)
    tell(site, round_number, result, FINAL_SUM.name)


def _refuse_by_policy(site: Site) -> None:
    """Refuse subgroups where the policy, which may have changed since, does not allow them."""
    policy = site.home.policy()
    if site.run.experiment.evaluation.subgroups and policy.settings.subgroups == "refused":
        raise RefusalError(
            f"{site.name} tells of no subgroups of its test cases, by {policy.by('subgroups')}."
        )


def _refuse_other_model(site: Site, state: RoundState) -> None:
    """Refuse to tell more by another model of the run, where the site withholds small counts.

    A coordinator can say of any round that it was the last, and that its model is kept; of what
    several models make of the same groups, differences are of few cases.

    Raises:
        RefusalError: the site has told by another model of this run before.
        ConsiliumError: what it has written down of that cannot be read.
    """
    if not site.home.policy().settings.min_count:
        return
    told, path = weights_digest(own_weights(site, state)), site.store.final_path
    try:
        before = read_json(path)["weights"] if path.is_file() else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise unreadable(path, error) from error
    if before is None:
        write_json(path, {"weights": told}, PRIVATE)
    elif before != told:
        raise RefusalError(
            f"{site.name} has told of its test cases at the end of run {site.run.run_id} already, "
            "by another model. With a min_count in its policy it does so of one model of a run: "
            "what two models make of the same groups may differ by few cases. Ask in a run of its "
            "own."
        )


def _predicted(site: Site, state: RoundState) -> Arrays:
    """What the model predicts of the site's test cases, with flips where they are asked for."""
    context = worker_context(site)
    state.layout.load(context.model, own_weights(site, state))
    device = next(context.model.parameters()).device
    cases = site_cases(site, "test")
    found = dict(context.task.predict(context.model, cases, device, context.info))
    if context.experiment.evaluation.uncertainty == "flips":
        found |= predict_flips(context.model, cases, device)
    return found


def _told(site: Site, predictions: Arrays) -> EvaluationStatistics:
    context, cases = worker_context(site), held_cases(site)
    asked = final_task(context.info, context.experiment.evaluation)
    attributes = cases.attributes(cases.partition.sites, "test")
    places = places_of(attributes, len(site_cases(site, "test")), asked.subgroups)
    return final_of(asked, predictions, places)


def receive_final(
    coordinator: Coordinator, topic: Topic, sites: Sequence[str], info: DatasetInfo
) -> FinalOutcome:
    """What follows of all sites' test cases from what they have told at the end of a run.

    What has not arrived, or can be told of no such cases, is left out, with the reason.
    """
    asked = final_task(info, coordinator.run.experiment.evaluation)
    told: dict[str, EvaluationStatistics] = {}
    missing: dict[str, str] = {}
    for site in sites:
        try:
            message = coordinator.mailbox.receive(
                topic, kinds.FINAL_EVALUATION, site, kinds.MOST_EVALUATION
            )
            cases = coordinator.run.counts.cases(site, "test")
            told[site] = _read(message.body, asked, site, cases)
        except ConsiliumError as error:
            missing[site] = str(error)
            coordinator.note_left_out(topic, site, str(error))
    return FinalOutcome(final_over_sites(asked, told), missing)


def collect_final(
    coordinator: Coordinator,
    topic: Topic,
    info: DatasetInfo,
    summed: Sequence[str],
    opener: str | None = None,
) -> FinalSums:
    """What follows of the test cases of all sites in an opened sum.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        info: of the data set.
        summed: the sites in it.
        opener: the site that has opened it, where there is a key.

    Raises:
        ConsiliumError: it has not arrived, or cannot be the sum of so many cases.
    """
    run = coordinator.run
    asked = final_task(info, run.experiment.evaluation)
    total = collect(coordinator, topic, info, list(summed), opener)
    found = summed_statistics(total, asked.summed_form)
    cases = sum(run.counts.cases(site, "test") for site in summed)
    refuse_inconsistent(found, asked.summed_form, cases)
    return final_of_sum(asked, found, summed)


def _read(content: bytes, asked: FinalTask, site: str, cases: int) -> EvaluationStatistics:
    """What a site has told, once it is sure that it can be told of its test cases.

    Raises:
        ConsiliumError: it cannot.
    """
    if content == NO_NUMBERS:
        raise ConsiliumError(PREDICTS_NONE)
    try:
        arrays = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ConsiliumError(
            f"What {site} has sent at the end of the run cannot be read ({error!r:.100})."
        ) from error
    told = from_wire(arrays, asked.form, site)
    reasons = final_contradictions(asked, told)
    if told.cases != cases:
        reasons = iter([f"it is of {told.cases} cases, and the site has {cases}"])
    for reason in reasons:
        raise ConsiliumError(
            f"What {site} has told at the end of the run of its test cases is refused: {reason}."
        )
    return told
