"""own-models: what the sites hand over of their own models, after a run's last round."""

import json
from collections.abc import Mapping
from math import isfinite

from safetensors import SafetensorError
from safetensors.numpy import load

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from federated.update import RoundState, Vector


def receive_models(
    coordinator: Coordinator, topic: Topic, state: RoundState
) -> dict[str, dict[str, Vector]]:
    """For each site, the tensors in which its model differs from the global one.

    They are the same tensors for all sites; the result is empty where every site has the global
    model, or keeps its own to itself.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to.
        state: the state whose model the run keeps.

    Raises:
        ConsiliumError: what a site sent has not arrived, or does not fit the model.
    """
    common = state.layout.split(state.weights)
    most = state.weights.nbytes + kinds.MOST_SMALL
    own: dict[str, Mapping[str, Vector]] = {}
    for site in coordinator.run.sites:
        message = coordinator.mailbox.receive(topic, kinds.OWN_MODEL, site, most)
        own[site] = _tensors(message.body, site, common)
    names = {name for parts in own.values() for name in parts}
    if not names:
        return {}
    return {
        site: {name: parts.get(name, common[name]) for name in names} for site, parts in own.items()
    }


def _tensors(content: bytes, site: str, common: Mapping[str, Vector]) -> dict[str, Vector]:
    try:
        found = dict(load(content)) if content else {}
        for name, value in found.items():
            if value.shape != common[name].shape or value.dtype != common[name].dtype:
                raise ValueError(f"{name} has another shape or type")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"What {site} hands over of its own model is refused ({error!r:.150})."
        ) from error
    return found


def receive_shares(coordinator: Coordinator, topic: Topic) -> dict[str, dict[str, float]]:
    """For each site, the share in [0, 1] of each layer's values that are the site's own.

    Raises:
        ConsiliumError: what a site sent has not arrived, or is something else.
    """
    shares = {}
    for site in coordinator.run.sites:
        message = coordinator.mailbox.receive(topic, kinds.OWN_SHARES, site, kinds.MOST_SMALL)
        try:
            told = {str(layer): float(share) for layer, share in json.loads(message.body).items()}
            if not all(isfinite(share) and 0 <= share <= 1 for share in told.values()):
                raise ValueError("a share is none")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ConsiliumError(
                f"What {site} tells of its sensitive layers is refused ({error!r:.150})."
            ) from error
        shares[site] = told
    return shares
