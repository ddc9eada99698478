"""What a plan's model needs, worked out from its configuration before any memory is taken."""

from functools import lru_cache

import numpy as np
import torch

from federated.configuration.experiment import Experiment
from federated.data.load import known_info
from federated.rounds.context import sent_groups
from federated.update import Layout
from federated.weights.build import new_model

# In bytes, of a state beside its arrays: the names and shapes of tensors are the longest part.
MOST_HEADER = 8 * 2**20
VALUE_BYTES = 4


@lru_cache(maxsize=64)
def planned_layout(experiment: Experiment) -> Layout:
    """The names and shapes of the tensors of an experiment's model, without their values."""
    # Torch makes tensors on this device that have a shape and no memory.
    with torch.device("meta"):
        model = new_model(experiment, known_info(experiment.data))
    return Layout.of(model, experiment.strategy.personal(model))


def most_state(experiment: Experiment) -> int:
    """How many bytes the state of a round of an experiment may have.

    They are those of the weights, of what the strategy broadcasts beside them, and of what a
    compression needs: at most a score for each value that is sent, and a range for each tensor.
    """
    layout = planned_layout(experiment)
    shared = sum(layout.shared_groups)
    # What is broadcast is as long as the shared weights; one value shows how many vectors it is.
    server = experiment.strategy.open_server(np.zeros(1, np.float32))
    vectors = sum(array.size for array in server.broadcast.values())
    groups = sent_groups(experiment, layout)
    values = layout.size + vectors * shared + sum(groups) + len(groups)
    return VALUE_BYTES * values + MOST_HEADER
