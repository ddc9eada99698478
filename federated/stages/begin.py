"""begin: write what round 1 starts from."""

import numpy as np
from torch import nn

from federated.files import write_json
from federated.rounds.aggregation import first_state
from federated.run.update_files import write_outcome
from federated.stages.coordinator import Coordinator


def write_initial_state(coordinator: Coordinator, model: nn.Module) -> None:
    """Write what round 1 starts from: the model's weights, and what the compression needs.

    Raises:
        ConsiliumError: there can be no first round with these settings.
    """
    # What makes a first round impossible is refused before anything is written.
    folder = coordinator.folder
    state, memory = first_state(coordinator.run, model)
    # The state itself is removed once the run is further than that.
    write_json(folder.largest_weight_path, float(np.abs(state.weights).max(initial=0.0)))
    write_outcome(folder.state_path(0), state, folder.server_path(0), memory)
