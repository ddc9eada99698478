"""sensitivity: which layers a personalised run found sensitive to the domain, as a figure."""

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from federated.stages.own_models import receive_shares
from federated.stages.site_model import layer_shares
from federated.update import RoundState

FIGURE = "sensitive_layers.png"


@task(name="sensitivity", task_run_name="sensitivity", cache_policy=NO_CACHE)
def sensitivity(
    coordinator: Coordinator, topic: Topic, state: RoundState
) -> dict[str, dict[str, float]]:
    """Draw the shares of the sites that tell them into the run's folder, and return them."""
    # Importing Matplotlib takes a while; only these runs should wait for it.
    from federated.stages.sensitivity import sensitivity_figure

    layout = state.layout
    layers = layer_shares(layout, np.zeros(layout.size, np.bool_))
    shares = receive_shares(coordinator, topic, layers)
    path = coordinator.folder.root / FIGURE
    name = coordinator.run.experiment.name
    if shares:
        sensitivity_figure(shares, path, f"{name}, after round {state.round_number}")
    return shares
