"""site-model: a site's model after a round, which may be its own."""

import json

import numpy as np
from safetensors.numpy import save

from federated.exchange import kinds
from federated.run.update_files import read_memory
from federated.stages.site import Site, SiteCall, open_end, open_site
from federated.update import Arrays, Flags, Layout, RoundState, Vector


def own_weights(site: Site, state: RoundState) -> Vector:
    """The weights ``(size,)`` of a site's own model after the round of a state."""
    memory = site_memory(site, state.round_number)
    return site.run.experiment.strategy.personal_weights(state.weights, state.layout, memory)


def site_memory(site: Site, round_number: int) -> Arrays:
    """What a site has kept up to a round; empty where that is nothing."""
    path = site.store.latest_memory(round_number)
    return read_memory(path) if path else {}


def hand_over(call: SiteCall, round_number: int) -> None:
    """Send the coordinator, after a run's last round, what differs in the site's own model.

    These are the tensors that are personal by the layout, and others where a value differs; and,
    where the strategy finds values that are a site's own, the share of each layer that is. Both
    messages are empty where the site's policy keeps its model at the site, and the first one where
    nothing differs.

    Raises:
        ConsiliumError: nothing asks for it that counts.
    """
    site = open_site(call)
    state, topic = open_end(site, round_number)
    weights, layout = own_weights(site, state), state.layout
    common, own = layout.split(state.weights), layout.split(weights)
    names = layout.personal & own.keys()
    if weights is not state.weights:
        names |= {name for name, value in own.items() if (value != common[name]).any()}
    refused = site.home.policy().settings.own_model == "refused"
    if refused:
        names = frozenset()
    body = save({name: own[name].copy() for name in sorted(names)}) if names else b""
    site.to_coordinator(topic, kinds.OWN_MODEL, body)
    strategy = site.run.experiment.strategy
    mask = strategy.own_values(layout, site_memory(site, state.round_number))
    if mask is not None:
        shares = {} if refused else layer_shares(layout, mask)
        site.to_coordinator(topic, kinds.OWN_SHARES, json.dumps(shares).encode())


def layer_shares(layout: Layout, own: Flags) -> dict[str, float]:
    """The share in [0, 1] of each layer's values that are a site's own.

    A layer is a module with values of its own; ``own`` ``(size,)`` says which values are.
    """
    counts: dict[str, list[float]] = {}
    for name, part in layout.split(own.astype(np.float32)).items():
        counts.setdefault(name.rpartition(".")[0], []).extend(part.ravel().tolist())
    return {layer: float(np.mean(values)) for layer, values in counts.items()}
