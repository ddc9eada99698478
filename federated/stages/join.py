"""A site that joins a finished federation: it takes what is common and finds its own.

The site gets the global model, finds which values are its own to move, as the federation's strategy
decides, and trains only those on its own cases. Nothing goes back: no other site's model changes.
"""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.errors import ConsiliumError
from federated.learning import evaluate_here
from federated.learning.evaluation import Evaluation
from federated.run.folder import RunFolder
from federated.run.selection import kept_round
from federated.run.update_files import read_state, write_memory
from federated.settings.names import refuse_site_name
from federated.stages.entering import enter, enter_evaluation, training_records
from federated.stages.evaluate import predict_splits
from federated.stages.local_train import local_task
from federated.stages.share_style import other_styles
from federated.stages.worker import site_cases, worker_context
from federated.strategies.base import SiteStart
from federated.training.loop import Turn, train
from federated.training.masked_rule import MaskedRule
from federated.training.rule import LocalRule
from federated.update import Vector

# What a site that has joined keeps: its model's values.
WEIGHTS = "weights"


@dataclass(frozen=True)
class Joined:
    """Metrics with the global model and with the site's own, and what share of it moved.

    ``moved`` is in [0, 1]; ``seconds`` is the wall-clock time of the stage.
    """

    before: Evaluation
    after: Evaluation
    moved: float
    seconds: float


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
    return resolve(value.pop("name"), value, f"run {federation.run_id}")


def join_site(run: Path, federation: Path, site: str, rounds: int) -> Joined:
    """Train a joining site's own values for ``rounds`` rounds of local epochs, and evaluate.

    The weights are left in the site's memory of the last round.

    Args:
        run: the site's folder.
        federation: the folder of the finished run.
        site: the site's name.
        rounds: how many rounds.

    Raises:
        ConsiliumError: a budget of whoever holds the site's data does not allow it.
    """
    started = time.time()
    folder, others = RunFolder(run), RunFolder(federation)
    context = worker_context(run)
    # What is trained without noise and evaluated here goes into the federation's folder, the
    # tracking server and the registry.
    enter(run, site, 1, training_records(run, site))
    enter_evaluation(run, site, 1)
    experiment, model = context.experiment, context.model
    common = others.experiment()
    state = read_state(others.state_path(kept_round(others.records(), common.selection)))
    layout, cases = state.layout, site_cases(run, site, "train")
    start = SiteStart(layout, state.weights, state.broadcast, {}, site, 1, rounds)
    layout.load(model, state.weights)
    before = _evaluate(run, site)
    task = local_task(context, cases, partial(other_styles, others, site))
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
            Turn(experiment.seed, site, number, rounds),
        )
        weights = layout.flatten(model)
        weights[~trainable] = state.weights[~trainable]  # weight decay touches every value
        layout.load(model, weights)
    write_memory(folder.memory_path(rounds, site), {WEIGHTS: weights})
    return Joined(before, _evaluate(run, site), float(trainable.mean()), time.time() - started)


def _evaluate(run: Path, site: str) -> Evaluation:
    context = worker_context(run)
    found: dict[str, Any] = {site: predict_splits(run, site)}
    return evaluate_here(context.task, found, context.info, context.experiment.evaluation)
