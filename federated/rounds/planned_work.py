"""How much a site is to compute in a round of a plan, worked out from the plan alone."""

from dataclasses import dataclass

import numpy as np

from federated.configuration.experiment import Experiment
from federated.strategies.base import SiteStart
from federated.training.optimization import local_work
from federated.update import Layout


@dataclass(frozen=True)
class PlannedWork:
    """The work of a site in a round, of all passes of the strategy together.

    ``steps`` is the number of optimiser steps. ``epochs`` is how often a case is drawn on average;
    each of several patches of it counts.
    """

    steps: int
    epochs: float


def planned_work(experiment: Experiment, cases: int) -> PlannedWork:
    """What a site with ``cases`` training cases does in a round of an experiment, at most."""
    nothing = np.zeros(0, np.float32)
    start = SiteStart(Layout(()), nothing, {}, {}, "", 1, experiment.rounds)
    steps, epochs = 0, 0.0
    for one in experiment.strategy.passes(start):
        own = {"local_epochs": one.epochs, "local_steps": None} if one.epochs else {}
        training = experiment.training.model_copy(update=own)
        count = local_work(cases, training, batch_norm=False).steps
        steps += count
        if training.local_steps is None:
            epochs += training.local_epochs * training.patches_per_case
        elif cases:
            epochs += count * min(training.batch_size, training.drawn(cases)) / cases
    return PlannedWork(steps, epochs)
