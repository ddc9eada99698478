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

# In a site's memory: the values of its own tensors.
PERSONAL = "personal"
# Or other values of its own: those of a whole model, if the strategy does not say which.
OWN = "own"

Units = frozenset[Unit]
# The training itself is private, so that whatever comes of one pass of it is too.
RECORD: Units = frozenset({"record"})
# All that leaves the training is in the vector that is sent, which is clipped and noised whole.
RECORD_AND_SITE: Units = frozenset({"record", "site"})


@dataclass(frozen=True)
class SiteStart:
    """What a site starts a round from.

    ``weights`` are the global ones, in the layout's order, of which ``broadcast`` came with them;
    ``memory`` is what the site itself kept of the last round it took part in, empty before that.
    ``name`` is the site's; rounds count from 1.
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


class MeanNoise(Settings):
    """The Gaussian mechanism on a mean over a site's training cases, for a record as the unit.

    What each case adds is clipped to norm ``clip``, and the sum has noise of ``noise_multiplier`` ·
    ``clip``. It is entered in the site's ledger.
    """

    clip: float = Field(gt=0)
    noise_multiplier: float = Field(gt=0)


@dataclass(frozen=True)
class Introduction:
    """What every site tells all others before the first round: a mean over its training cases.

    Args:
        describe: from images ``(n, channels, *spatial)`` to what is meaned, ``(n, *shape)``.
        noise: what makes the mean private; ``None`` for the mean as it is.
        nonnegative: whether no value of such a mean is below 0, so that noise may not make it so.
    """

    describe: Callable[[Tensor], Tensor]
    noise: MeanNoise | None = None
    nonnegative: bool = False


class Strategy(Settings):
    """A strategy is its own section of params.yaml; the defaults here are those of FedAvg.

    State between rounds is passed in and returned, never kept in the object. Vectors hold the
    shared values of the layout, in its order.
    """

    # For which units of privacy the strategy is covered: everything of it that is sent, evaluated,
    # saved or registered has the noise in it that the ledger's entry of the round is about.
    #
    # "record": each round is one pass over the cases, with the private gradients, and nothing else
    # looks at them. "site": nothing that a site keeps goes anywhere but into a later update.
    # A strategy that says nothing is refused with privacy; a subclass says it for itself.
    covered_by_privacy: ClassVar[Units] = frozenset()
    # Whether all sites' cases are trained on in one place, as no federation may.
    pools_cases: ClassVar[bool] = False

    def introduction(self) -> Introduction | None:
        """What sites tell each other of their cases before the first round, if anything.

        A strategy gets that of the other sites as ``LocalData.styles``.
        """
        return None

    def own_values(self, layout: Layout, memory: Arrays) -> Flags | None:
        """Which values ``(size,)`` of a model became a site's own, to be shown at a run's end.

        ``None`` where a strategy has nothing to show.
        """
        return None

    def personal(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors that stay at each site."""
        return frozenset()

    def sent_sizes(self, change: float) -> tuple[float, ...]:
        """About the largest value of each part of what is sent, where training moves by ``change``.

        Each part is as long as the shared values; the update is the first.
        """
        return (change,)

    def personal_weights(self, weights: Vector, layout: Layout, memory: Arrays) -> Vector:
        """The site's model: the global weights with what is the site's own of them.

        ``weights`` itself where nothing is.
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
        """What is trained at a site in a round, in order; the last pass is what is sent.

        The first one names its weights.
        """
        own = self.personal_weights(start.weights, start.layout, start.memory)
        return [LocalPass(lambda model: self.local_rule(model, start), own)]

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The rule for a site's local steps; ``model`` holds the weights it starts from."""
        return LocalRule()

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """What the site sends and what it keeps for itself.

        ``update`` is by how much the last pass ended from the global weights, on the shared values;
        ``rule`` and ``work`` are of that pass.
        """
        return update, {}

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """What is the site's own of the models that the passes ``ended`` with."""
        if not start.layout.personal:
            return {}
        return {PERSONAL: ended[-1][~start.layout.shared]}

    def trainable_on_join(self, start: SiteStart, model: nn.Module, data: LocalData) -> Flags:
        """Which values a site that joins a finished federation may move; the others stay.

        ``model`` holds the global weights. By default the site's own tensors, or all of them where
        there are none.
        """
        personal = ~start.layout.shared
        return personal if personal.any() else ~personal

    def open_server(self, weights: Vector) -> Server:
        """The server before the first round."""
        return Server(weights)

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """The server after a round; ``mean`` is Σ n_k·sent_k / Σ n_k over the sites of ``who``."""
        return Server((server.weights + mean).astype(np.float32), server.broadcast, server.memory)
