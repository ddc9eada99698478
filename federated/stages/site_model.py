"""site-model: the models of sites after a round, which may be their own."""

from federated.run.folder import RunFolder
from federated.run.update_files import read_memory, read_state
from federated.stages.worker import worker_context
from federated.update import Arrays, RoundState, Vector


def site_weights_after(
    folder: RunFolder, round_number: int, site: str
) -> tuple[RoundState, Vector]:
    """The state after a round, and the weights ``(size,)`` of a site's own model then."""
    state = read_state(folder.state_path(round_number))
    memory = site_memory(folder, round_number, site)
    strategy = worker_context(folder.root).experiment.strategy
    return state, strategy.personal_weights(state.weights, state.layout, memory)


def site_memory(folder: RunFolder, round_number: int, site: str) -> Arrays:
    """What a site has kept up to a round; empty where that is nothing."""
    path = folder.latest_memory(site, round_number)
    return read_memory(path) if path else {}


def personal_tensors(folder: RunFolder, round_number: int) -> dict[str, dict[str, Vector]]:
    """For each site, the tensors in which its model after a round differs from the global one.

    They are the same tensors for all sites; the result is empty where every site has the global
    model.
    """
    state = read_state(folder.state_path(round_number))
    layout, strategy = state.layout, folder.experiment().strategy
    common, names, own = layout.split(state.weights), set(layout.personal), {}
    for site in folder.sites():
        memory = site_memory(folder, round_number, site)
        weights = strategy.personal_weights(state.weights, layout, memory)
        own[site] = layout.split(weights)
        if weights is not state.weights:
            names |= {n for n, value in own[site].items() if (value != common[n]).any()}
    if not names:
        return {}
    return {site: {n: v for n, v in parts.items() if n in names} for site, parts in own.items()}
