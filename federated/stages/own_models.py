"""own-models: what the sites hand over of their own models, after a run's last round."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isfinite

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.stages.coordinator import Coordinator
from federated.update import RoundState, Vector


@dataclass(frozen=True)
class HandedOver:
    """For each site, the tensors in which its model differs from the global one.

    They are the same tensors for all sites; ``models`` is empty where every site has the global
    model, or keeps its own to itself. ``missing`` are the sites whose model has not arrived or is
    refused, and why: the run ends without it.
    """

    models: dict[str, dict[str, Vector]]
    missing: dict[str, str]


def receive_models(coordinator: Coordinator, topic: Topic, state: RoundState) -> HandedOver:
    """What the sites hand over of their own models.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to.
        state: the state whose model the run keeps.
    """
    common = state.layout.split(state.weights)
    most = state.weights.nbytes + kinds.MOST_SMALL
    own: dict[str, Mapping[str, Vector]] = {}
    missing: dict[str, str] = {}
    for site in coordinator.run.sites:
        try:
            message = coordinator.mailbox.receive(topic, kinds.OWN_MODEL, site, most)
            own[site] = _tensors(message.body, site, common)
        except ConsiliumError as error:
            missing[site] = str(error)
            coordinator.note_left_out(topic, site, str(error))
    names = {name for parts in own.values() for name in parts}
    models = {
        site: {name: parts.get(name, common[name]) for name in names}
        for site, parts in own.items()
        if names
    }
    return HandedOver(models, missing)


def _tensors(content: bytes, site: str, common: Mapping[str, Vector]) -> dict[str, Vector]:
    try:
        found = dict(load(content)) if content else {}
        for name, value in found.items():
            if value.shape != common[name].shape or value.dtype != common[name].dtype:
                raise ValueError(f"{name} has another shape or type")
            if not np.isfinite(value).all():
                raise ValueError(f"{name} has what is no finite number")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"What {site} hands over of its own model is refused ({error!r:.150})."
        ) from error
    return found


def receive_shares(
    coordinator: Coordinator, topic: Topic, layers: Collection[str]
) -> dict[str, dict[str, float]]:
    """For each site, the share in [0, 1] of each layer's values that are the site's own.

    A site that has sent nothing, or something else, is left out; so is one whose policy keeps its
    model to itself.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages answer to.
        layers: the names of all layers.
    """
    shares = {}
    for site in coordinator.run.sites:
        try:
            message = coordinator.mailbox.receive(topic, kinds.OWN_SHARES, site, kinds.MOST_SMALL)
            told = _shares(message.body, site, layers)
        except ConsiliumError as error:
            coordinator.note_left_out(topic, site, str(error))
        else:
            if told:
                shares[site] = told
    return shares


def _shares(content: bytes, site: str, layers: Collection[str]) -> dict[str, float]:
    """The shares of all layers, or of none."""
    try:
        told = {str(layer): float(share) for layer, share in json.loads(content).items()}
        if not all(isfinite(share) and 0 <= share <= 1 for share in told.values()):
            raise ValueError("a share is none")
        if told and told.keys() != set(layers):
            raise ValueError("it has other layers")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ConsiliumError(
            f"What {site} tells of its sensitive layers is refused ({error!r:.150})."
        ) from error
    return told
