"""sensitivity: which layers a personalised run found sensitive to the domain, as a figure."""

from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.run.folder import RunFolder

FIGURE = "sensitive_layers.png"


@task(name="sensitivity", task_run_name="sensitivity", cache_policy=NO_CACHE)
def sensitivity(run: Path, round_number: int) -> dict[str, dict[str, float]]:
    """Draw the sites' shares of a round into the run's folder, and return them."""
    # Importing Matplotlib takes a while; only these runs should wait for it.
    from federated.stages.sensitivity import layer_shares, sensitivity_figure

    folder = RunFolder(run)
    shares = layer_shares(folder, round_number)
    name = folder.experiment().name
    sensitivity_figure(shares, run / FIGURE, f"{name}, after round {round_number}")
    return shares
