"""What a federated strategy decides, as a few functions over explicit values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from federated.settings.base import Settings, Unit
from federated.training.rule import LocalData, LocalPass, LocalRule, LocalWork
from federated.update import Arrays, Flags, Layout, Vector

# Its name in a site's memory: the values of the site's own tensors.
PERSONAL = "personal"
# Other values of its own: those of a whole model, unless the strategy says which.
OWN = "own"

Units = frozenset[Unit]
# The training itself is private, so that whatever comes of one pass of it is too.
RECORD: Units = frozenset({"record"})
# All that leaves the training is in the vector that is sent, which is clipped and noised whole.
RECORD_AND_SITE: Units = frozenset({"record", "site"})


@dataclass(frozen=True)
class SiteStart:
    """What a site starts a round from.

    ``weights`` ``(size,)`` are the global weights in the layout's order, and ``broadcast`` is what
    came with them. ``memory`` is what the site itself kept from the last round that it took part
    in; it is empty before that. ``name`` is the site's. Rounds are counted from 1, and there are
    ``rounds`` of them.
    """

    layout: Layout
    weights: Vector
    broadcast: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)
    name: str = ""
    round_number: int = 1
    rounds: int = 1

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The global weights by the names of the model's tensors, on its device."""
        device = next(model.parameters()).device
        parts = self.layout.split(self.weights)
        return {name: torch.tensor(part, device=device) for name, part in parts.items()}


@dataclass(frozen=True)
class Server:
    """The server between rounds: the global weights and a strategy's state.

    ``weights`` ``(shared,)`` are the shared values alone. ``broadcast`` goes to the sites with the
    weights; ``memory`` stays at the server.
    """

    weights: Vector
    broadcast: Arrays = field(default_factory=dict)
    memory: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Participation:
    """Who sent an update: each site's weight n_k / Σn and work, and their share of all cases."""

    weights: Mapping[str, float]
    work: Mapping[str, LocalWork]
    share: float = 1.0


class MeanNoise(Settings):
    """The Gaussian mechanism on a mean over a site's training cases, with a record as the unit.

    The contribution of each case is clipped to norm ``clip``, and the noise in their sum has the
    standard deviation ``noise_multiplier`` · ``clip``. The release is entered in the site's ledger.
    """

    clip: float = Field(gt=0)
    noise_multiplier: float = Field(gt=0)


@dataclass(frozen=True)
class Introduction:
    """What every site tells all others before the first round: a mean over its training cases.

    Args:
        describe: maps images ``(n, channels, *spatial)`` to the values that are averaged, ``(n,
            *shape)``.
        noise: what makes the mean private; ``None`` for the mean as it is.
        nonnegative: whether no value of such a mean is below 0, so that noise may not make it so.
    """

    describe: Callable[[Tensor], Tensor]
    noise: MeanNoise | None = None
    nonnegative: bool = False


class Strategy(Settings):
    """How sites train and how the server applies the sum; the defaults here are those of FedAvg.

    A strategy object is the section ``strategy`` of params.yaml. State between rounds is passed in
    and returned, never kept in the object. Vectors hold the values of the layout in its order: all
    of them ``(size,)``, or the shared ones ``(shared,)``. What a site sends has one part
    ``(shared,)`` or several, one after the other: ``(parts * shared,)``.
    """

    # The units of privacy for which the strategy is covered: everything of it that is sent,
    # evaluated, saved or registered has the noise in it that the ledger's entry of the round is
    # about.
    #
    # "record": each round is one pass over the cases, with the private gradients, and nothing else
    # looks at them. "site": nothing that a site keeps goes anywhere but into a later update.
    # A strategy that says nothing is refused with privacy; a subclass says it for itself.
    covered_by_privacy: ClassVar[Units] = frozenset()
    # Whether all sites' cases are trained on in one place, as no federation may.
    pools_cases: ClassVar[bool] = False
    # Whether a site sends what it has learned, so that one model of all comes of it.
    sends_updates: ClassVar[bool] = True
    # Whether a site keeps nothing from one round to the next, so that evaluation of a round may
    # take place beside the training of the next. A subclass says it for itself.
    keeps_nothing: ClassVar[bool] = False

    def introduction(self) -> Introduction | None:
        """What sites tell each other of their cases before the first round; ``None`` for nothing.

        A strategy gets what the other sites told as ``LocalData.styles``.
        """
        return None

    def own_values(self, layout: Layout, memory: Arrays) -> Flags | None:
        """Which values ``(size,)`` of a model became a site's own, to be shown when a run ends.

        It is ``None`` where a strategy has nothing to show.
        """
        return None

    def personal(self, model: nn.Module) -> frozenset[str]:
        """The names of the tensors that stay at each site."""
        return frozenset()

    def sent_sizes(self, change: float) -> tuple[float, ...]:
        """About the largest value of each part of what is sent, if training moves by ``change``.

        There is one number for each part; the update is the first part. A part has as many values
        as are shared, so a site sends ``(len(result) * shared,)``.
        """
        return (change,)

    def personal_weights(self, weights: Vector, layout: Layout, memory: Arrays) -> Vector:
        """The weights ``(size,)`` of a site's model: the global ones with its own values.

        It is ``weights`` itself, not a copy, where the site has no values of its own.

        Args:
            weights: the global weights, ``(size,)``.
            layout: which of them are shared.
            memory: what the site kept.
        """
        if OWN in memory:
            whole: Vector = memory[OWN]
            return whole
        if PERSONAL not in memory:
            return weights
        own = weights.copy()
        own[~layout.shared] = memory[PERSONAL]
        return own

    def passes(self, start: SiteStart) -> Sequence[LocalPass]:
        """The passes that a site trains in a round, in order; the result of the last is sent.

        The first pass states the weights ``(size,)`` that it begins with.
        """
        own = self.personal_weights(start.weights, start.layout, start.memory)
        return [LocalPass(lambda model: self.local_rule(model, start), own)]

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The rule for a site's local steps; ``model`` holds the weights that they start from."""
        return LocalRule()

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The vector ``(parts * shared,)`` that the site sends, and what it keeps for itself.

        Args:
            update: how far the last pass ended from the global weights, on the shared values,
                ``(shared,)``.
            rule: the rule of that pass.
            work: how much the site trained in it.
            start: what the site started the round from.
        """
        return update, {}

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """What the site keeps as its own of the models that its passes ended with.

        Args:
            ended: for every pass, the weights ``(size,)`` that it ended with.
            rules: for every pass, its rule.
            start: what the site started the round from.
        """
        if not start.layout.personal:
            return {}
        return {PERSONAL: ended[-1][~start.layout.shared]}

    def trainable_on_join(self, start: SiteStart, model: nn.Module, data: LocalData) -> Flags:
        """Which values ``(size,)`` may be moved by a site that joins a finished federation.

        The others stay. ``model`` holds the global weights. By default these are the site's own
        tensors, or all tensors where there are none of its own.
        """
        personal = ~start.layout.shared
        return personal if personal.any() else ~personal

    def open_server(self, weights: Vector) -> Server:
        """The server before the first round, from the shared weights ``(shared,)``."""
        return Server(weights)

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """The server after a round.

        Args:
            server: the server before it.
            mean: Σ n_k·sent_k / Σ n_k over the sites of ``who``, ``(parts * shared,)``.
            who: the sites whose payloads are in the mean.
        """
        return Server((server.weights + mean).astype(np.float32), server.broadcast, server.memory)
