"""What a strategy may change in a site's local training, and what its rules are given."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from federated.training.objective import Loss, Take
from federated.update import Vector


@dataclass(frozen=True)
class LocalData:
    """A site's training cases, for a rule to look at.

    Args:
        count: the number of cases.
        epoch: how many of them an epoch of training draws; more than ``count`` where it takes
            several patches of each.
        take: maps indices of cases to network inputs and targets.
        loss: the loss of training, from logits, with torch's ``mean`` or ``none``.
        generator: what a rule draws from.
        styles: reads the styles of the other sites.
    """

    count: int
    epoch: int
    take: Take
    loss: Loss
    generator: torch.Generator
    styles: Callable[[], Sequence[Vector]]


@dataclass(frozen=True)
class LocalWork:
    """How much a site trains in a round.

    ``steps`` is the number of optimiser steps, ``momentum`` that of SGD, in [0, 1), and 0 for
    AdamW.
    """

    steps: int
    momentum: float = 0.0


class LocalRule:
    """What a strategy changes in a site's local steps in one round; this rule changes nothing."""

    def adjust_gradients(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Change ``.grad`` in place, after the backward pass and before the optimiser's step."""

    def after_training(self, model: nn.Module, data: LocalData) -> None:
        """Look at the model once it is trained, and at the cases that it was trained on."""


@dataclass(frozen=True)
class LocalPass:
    """One run of the local loop in a round.

    Args:
        rule: makes the rule, from the model with the weights that the pass begins with.
        weights: the weights ``(size,)`` that it begins with; ``None`` for those that the pass
            before it ended with.
        epochs: replaces ``training.local_epochs`` if it is set.
    """

    rule: Callable[[nn.Module], LocalRule]
    weights: Vector | None = None
    epochs: int | None = None
