"""What the coordinator does in a round: choose sites, aggregate, evaluate, commit."""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any

from torch import nn

from federated.config import Experiment
from federated.data.partition import Partition
from federated.evaluation import Evaluation, score
from federated.files import write_json
from federated.randomness import numpy_generator
from federated.run_folder import RunFolder
from federated.site import read_predictions
from federated.update import Layout, RoundState, read_payload, read_state, write_state


def write_initial_state(folder: RunFolder, model: nn.Module) -> None:
    """Write the weights that round 1 starts from."""
    layout = Layout.of(model)
    write_state(folder.state_path(0), RoundState(0, layout.flatten(model), layout))


def choose_sites(experiment: Experiment, sites: list[str], round_number: int) -> list[str]:
    """The sites asked in a round: the configured share of all, at least one, in order."""
    count = ceil(experiment.sites.participation * len(sites))
    rng = numpy_generator(experiment.seed, purpose="participation", round_number=round_number)
    return sorted(rng.choice(sites, size=count, replace=False).tolist())


def site_weights(partition: Partition, sites: list[str]) -> dict[str, float]:
    """n_k / Σn over the sites asked, with n_k the training cases of site k."""
    cases = {site: partition.cases(site, "train") for site in sites}
    total = sum(cases.values())
    return {site: count / total for site, count in cases.items()}


def aggregate(folder: RunFolder, round_number: int, sites: Iterable[str]) -> tuple[int, int]:
    """Add the sites' payloads one after the other and write the round's state.

    One payload and one sum are in memory at a time, however many sites there are; the fixed order
    of sites makes the floating-point sum the same in every run.

    Returns:
        Bytes of the new global model, as each site downloads it, and its number of values.
    """
    experiment = folder.experiment()
    state = read_state(folder.state_path(round_number - 1))
    running = None
    for site in sites:
        payload = read_payload(folder.site_path(round_number, site, "payload"))
        if running is None:
            running = experiment.protection.open_sum(payload.length)
        experiment.protection.add(running, payload, round_number)
    if running is None:
        running = experiment.protection.open_sum(state.layout.size)
    mean = experiment.compression.decompress(experiment.protection.mean(running), state.layout.size)
    weights, strategy_state = experiment.strategy.server_step(state.weights, mean, state.strategy)
    path = folder.state_path(round_number)
    write_state(path, RoundState(round_number, weights, state.layout, strategy_state))
    return path.stat().st_size, state.layout.size


def evaluate(folder: RunFolder, round_number: int, sites: Iterable[str]) -> Evaluation:
    """Metrics from the predictions that the sites wrote.

    The overall metrics need every site's predicted probabilities and labels; a federation that
    does not share those has the per-site ones alone.
    """
    predictions = {site: read_predictions(folder, round_number, site) for site in sites}
    return score(predictions)


def commit_round(folder: RunFolder, round_number: int, record: Mapping[str, Any]) -> None:
    """Mark a round as done, then drop what no later round reads.

    The states of the last two rounds stay, and the predictions of the last one.
    """
    write_json(folder.record_path(round_number), record)
    for kind in ("update", "compressed", "payload"):
        for path in folder.round_path(round_number).glob(f"*.{kind}.safetensors"):
            path.unlink()
    for path in folder.round_path(round_number - 1).glob("*.predictions.safetensors"):
        path.unlink()
    if round_number >= 2:
        folder.state_path(round_number - 2).unlink(missing_ok=True)
