"""What a federated strategy decides, as a few functions over explicit values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import nn

from federated.settings import Settings
from federated.update import Arrays, Layout, Vector


@dataclass(frozen=True)
class SiteStart:
    """What a site starts a round from.

    ``broadcast`` came from the server with the weights; ``memory`` is what the site itself kept
    of the last round it took part in, empty before that.
    """

    layout: Layout
    broadcast: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class LocalWork:
    """How much a site trains in a round: optimiser steps, and the momentum of SGD (0 for AdamW)."""

    steps: int
    momentum: float = 0.0


@dataclass(frozen=True)
class Server:
    """The server between rounds: global weights (the shared values alone) and a strategy's state.

    ``broadcast`` goes to the sites with the weights, ``memory`` stays.
    """

    weights: Vector
    broadcast: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Participation:
    """Who sent an update: n_k / Σn and the work of each site, and their share of all cases."""

    weights: Mapping[str, float]
    work: Mapping[str, LocalWork]
    share: float = 1.0


class LocalRule:
    """What a strategy changes in the local steps of one site in one round: here nothing."""

    def adjust(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Change ``.grad`` in place, after backward and before the optimiser's step."""


class Strategy(Settings):
    """A strategy is its own section of params.yaml; the defaults here are those of FedAvg.

    State between rounds is passed in and returned, never kept in the object. Vectors hold the
    shared values of the layout, in its order.
    """

    # Whether all sites' cases are trained on in one place, as no federation may.
    pools_cases: ClassVar[bool] = False

    def personal(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors that stay at each site."""
        return frozenset()

    def sent_length(self, shared: int) -> int:
        """How many values a site sends, where ``shared`` of the model's are shared."""
        return shared

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The rule for a site's local steps; ``model`` holds the weights it starts from."""
        return LocalRule()

    def finish_site(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """What the site sends, of :meth:`sent_length` values, and what it keeps for itself."""
        return update, {}

    def open_server(self, weights: Vector) -> Server:
        """The server before the first round."""
        return Server(weights)

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """The server after a round; ``mean`` is Σ n_k·sent_k / Σ n_k over the sites of ``who``."""
        return Server((server.weights + mean).astype(np.float32), server.broadcast, server.memory)
