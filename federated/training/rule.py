"""What a strategy may change in a site's local training, and what its rules are given."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from federated.training.objective import Loss, Take
from federated.update import Vector


@dataclass(frozen=True)
class LocalData:
    """A site's training cases, for a rule to look at; ``styles`` reads those of the other sites.

    ``take`` gives network inputs and what is to be predicted, by indices of ``count`` cases; an
    epoch of training draws ``epoch`` of them, more than ``count`` where it takes several patches of
    each; ``loss`` is that of training, from logits, with torch's ``mean`` or ``none``.
    """

    count: int
    epoch: int
    take: Take
    loss: Loss
    generator: torch.Generator
    styles: Callable[[], Sequence[Vector]]


@dataclass(frozen=True)
class LocalWork:
    """How much a site trains in a round: optimiser steps, and the momentum of SGD (0 for AdamW)."""

    steps: int
    momentum: float = 0.0


class LocalRule:
    """What a strategy changes in the local steps of one site in one round: here nothing."""

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Change ``.grad`` in place, after backward and before the optimiser's step."""

    def after_training(self, model: nn.Module, data: LocalData) -> None:
        """Look at the model once it is trained, and at the cases it was trained on."""


@dataclass(frozen=True)
class LocalPass:
    """One run of the local loop in a round.

    Args:
        rule: made from the model with the weights that the pass begins with.
        weights: these; ``None`` where the pass before has ended.
        epochs: instead of ``training.local_epochs``.
    """

    rule: Callable[[nn.Module], LocalRule]
    weights: Vector | None = None
    epochs: int | None = None
