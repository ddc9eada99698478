"""sensitivity: which layers a personalised run found sensitive to the domain, as a figure."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from federated.stages.own_models import receive_shares

FIGURE = "sensitive_layers.png"


@task(name="sensitivity", task_run_name="sensitivity", cache_policy=NO_CACHE)
def sensitivity(
    coordinator: Coordinator, topic: Topic, round_number: int
) -> dict[str, dict[str, float]]:
    """Draw the sites' shares of a round into the run's folder, and return them."""
    # Importing Matplotlib takes a while; only these runs should wait for it.
    from federated.stages.sensitivity import sensitivity_figure

    shares = receive_shares(coordinator, topic)
    path = coordinator.folder.root / FIGURE
    name = coordinator.run.experiment.name
    sensitivity_figure(shares, path, f"{name}, after round {round_number}")
    return shares
