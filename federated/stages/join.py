"""A site that joins a finished federation: it takes what is common and finds its own.

The site gets the global model, finds which values are its own to move, as the federation's strategy
decides, and trains only those on its own cases. Nothing goes back: no other site's model changes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.dataset import DatasetInfo, Split
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.learning import Arrays, evaluate_shared, task_of
from federated.learning.evaluation import Evaluation
from federated.run.folder import RunFolder
from federated.run.selection import kept_round
from federated.run.update_files import read_memory, read_state, write_memory
from federated.settings.names import refuse_site_name
from federated.stages.coordinator import Coordinator
from federated.stages.entering import enter, enter_evaluation, training_records
from federated.stages.evaluate import pack_shared, predict_splits, read_shared
from federated.stages.local_train import local_task
from federated.stages.share_style import STYLE
from federated.stages.site import Site, SiteCall, open_site
from federated.stages.worker import site_cases, worker_context
from federated.strategies.base import SiteStart
from federated.training.loop import Turn, train
from federated.training.masked_rule import MaskedRule
from federated.training.rule import LocalRule
from federated.update import Vector
from federated.weights.bounded_file import Content
from federated.weights.planned import most_state, planned_layout

# What a site that has joined keeps, its model's values; and the share of them that moved.
WEIGHTS, MOVED = "weights", "moved"


@dataclass(frozen=True)
class Joined:
    """Metrics with the global model and with the site's own, its weights, and what share moved.

    ``weights`` are ``(size,)``, and ``moved`` is in [0, 1].
    """

    before: Evaluation
    after: Evaluation
    weights: Vector
    moved: float


def joining_experiment(federation: RunFolder, site: str, data: Path) -> Experiment:
    """The experiment of a site that joins a run: the run's own, on the data of this site alone.

    Raises:
        ConsiliumError: the run is not finished, the site is one of its sites, or its strategy
            leaves nothing in common.
    """
    experiment = federation.experiment()
    if not federation.summary_path.is_file():
        raise ConsiliumError(
            f"Run {federation.run_id} of {experiment.name!r} is not finished, and a site joins a "
            f"finished federation. Finish it: consilium resume {experiment.name}"
        )
    refuse_site_name(site)
    if site in federation.case_counts().sites:
        raise ConsiliumError(
            f"{site} is one of the sites of run {federation.run_id}; its model is in the run. Name "
            "another site to join."
        )
    if experiment.strategy.name in ("local", "central"):
        raise ConsiliumError(
            f"Run {federation.run_id} has strategy.name={experiment.strategy.name}, in which no "
            "sites learn together, so there is nothing to join. Name a run of another strategy."
        )
    value = experiment.to_json()
    value["data"] |= {"root": str(data), "source": "files"}
    value["sites"] |= {"count": 1, "partition": "iid", "participation": 1.0}
    for section in ("privacy", "compression"):
        value[section] = {"name": "none"}
    value |= {"protection": {"name": "plain"}, "strategy": {"name": "fedavg"}}
    value["training"] |= {"freeze_rounds": 0}
    if value["evaluation"]["share"] == "sums":
        # There is no sum of one site: what is told of it, it tells for itself.
        value["evaluation"]["share"] = "statistics"
    for key in ("subgroups", "uncertainty"):
        # Nothing ends here at which it would be told.
        value["evaluation"].pop(key, None)
    return resolve(value.pop("name"), value, f"run {federation.run_id}")


def offer(coordinator: Coordinator, federation: RunFolder, site: str) -> None:
    """Send a joining site what a finished federation has in common.

    These are its configuration, the state whose model it keeps, and the styles of its sites.

    Raises:
        ConsiliumError: a file of the federation's run is missing or damaged.
    """
    common = federation.experiment()
    kept = kept_round(federation.records(), common.selection)
    styles = {
        other: read_memory(federation.style_path(other))[STYLE]
        for other in federation.case_counts().sites
        if federation.style_path(other).is_file()
    }
    topic, send = coordinator.start, coordinator.mailbox.send
    send(topic, kinds.OFFER, json.dumps(common.to_json()).encode(), site)
    send(topic, kinds.STATE, federation.state_path(kept).read_bytes(), site)
    send(topic, kinds.STYLES, save(styles) if styles else b"", site)


def join_site(call: SiteCall, rounds: int) -> None:
    """Train a joining site's own values for ``rounds`` rounds of local epochs, and evaluate.

    The weights are left in the site's memory of the last round, and sent. What ``evaluation.share``
    says is sent twice: of the global model, and of the site's own.

    Args:
        call: which site joins.
        rounds: how many rounds.

    Raises:
        ConsiliumError: a budget of whoever holds the site's data does not allow it, or its policy,
            or the run that it takes part in is private.
    """
    site = open_site(call)
    _refuse_join(site, rounds)
    context = worker_context(site)
    # What is trained without noise and evaluated here goes into the federation's folder, the
    # tracking server and the registry.
    enter(site, 1, training_records(site))
    enter_evaluation(site, 1)
    experiment, model = context.experiment, context.model
    value = json.loads(site.from_coordinator(site.start, kinds.OFFER).body)
    common = resolve(value.pop("name"), value, "the federation that is joined")
    sent = site.from_coordinator(site.start, kinds.STATE, most_state(common))
    state = read_state(Content(sent.body, "of the federation's state"))
    styles = site.from_coordinator(site.start, kinds.STYLES).body
    layout, cases = state.layout, site_cases(site, "train")
    start = SiteStart(layout, state.weights, state.broadcast, {}, site.name, 1, rounds)
    layout.load(model, state.weights)
    _evaluate(site, 0)
    task = local_task(context, model, cases, lambda: list(load(styles).values()) if styles else [])
    model.train()
    trainable = common.strategy.trainable_on_join(start, model, task.local_data(start))
    weights: Vector = state.weights
    for number in range(1, rounds + 1):
        train(
            model,
            cases,
            experiment.training,
            MaskedRule(LocalRule(), layout, trainable),
            task.loss,
            Turn(experiment.seed, site.name, number, rounds),
        )
        weights = layout.flatten(model)
        weights[~trainable] = state.weights[~trainable]  # weight decay touches every value
        layout.load(model, weights)
    write_memory(site.store.memory_path(rounds), {WEIGHTS: weights})
    topic = site.topic(rounds)
    moved = np.array([trainable.mean()])
    site.to_coordinator(topic, kinds.OWN_MODEL, save({WEIGHTS: weights, MOVED: moved}))
    _evaluate(site, rounds)


def _refuse_join(site: Site, rounds: int) -> None:
    """Refuse to train and hand over a model without noise where nobody at the site allowed that.

    Raises:
        RefusalError: the run that the site takes part in is no such run, or its policy says no.
    """
    policy, privacy = site.home.policy(), site.run.experiment.privacy
    most = policy.settings.max_rounds
    if site.run.purpose != "training":
        why = "by the plan of the run, which is for statistics, nothing is trained"
    elif privacy.unit is not None:
        why = "the run that it takes part in is private, and such a model has no noise"
    elif policy.settings.own_model == "refused":
        why = f"no model of its own leaves it, by {policy.by('own_model')}"
    elif rounds < 1:
        why = f"{rounds} rounds are none"
    elif most is None or rounds > most:
        why = f"it has {rounds} rounds, by {policy.by('max_rounds')}"
    else:
        return
    raise RefusalError(f"{site.name} does not join: {why}.")


def receive_joined(coordinator: Coordinator, site: str, rounds: int, info: DatasetInfo) -> Joined:
    """What a joined site hands over: its model, and what is told of how good it is.

    Args:
        coordinator: of the joining site's run.
        site: which site has joined.
        rounds: how many rounds it has trained.
        info: of its data set.

    Raises:
        ConsiliumError: something has not arrived, or is not what it has to be.
    """
    topic, experiment = coordinator.topic(rounds), coordinator.run.experiment
    size = planned_layout(experiment).size
    most = 4 * size + kinds.MOST_SMALL
    message = coordinator.mailbox.receive(topic, kinds.OWN_MODEL, site, most)
    try:
        told = load(message.body)
        weights, moved = told[WEIGHTS], told[MOVED]
        if told.keys() != {WEIGHTS, MOVED} or weights.shape != (size,) or moved.shape != (1,):
            raise ValueError("it has other tensors")
        if weights.dtype != np.float32 or not np.isfinite(weights).all() or not 0 <= moved[0] <= 1:
            raise ValueError("its numbers are none")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"The model that {site} hands over is refused ({error!r:.150}). Let it join again."
        ) from error
    settings = experiment.evaluation
    task = task_of(info, settings)
    before, after = (
        evaluate_shared(task, {site: _shared(coordinator, site, number)}, info, settings)
        for number in (0, rounds)
    )
    return Joined(before, after, weights, float(moved[0]))


def _shared(coordinator: Coordinator, site: str, round_number: int) -> dict[Split, Arrays]:
    topic, most = coordinator.topic(round_number), kinds.MOST_EVALUATION
    return read_shared(coordinator.mailbox.receive(topic, kinds.EVALUATION, site, most).body, site)


def _evaluate(site: Site, round_number: int) -> None:
    """Send what is told of the worker's model, as it is, on the site's cases."""
    site.to_coordinator(
        site.topic(round_number), kinds.EVALUATION, pack_shared(site, predict_splits(site))
    )
