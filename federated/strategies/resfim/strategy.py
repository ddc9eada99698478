"""pFL-ResFIM: the values that are sensitive to a site's style stay there (arXiv 2603.14848).

The Fisher information of a parameter tells how much the loss depends on it. Its *residual*, R_k =
|F̃_k − F_k|, tells how that changes between a site's own images and the same images in the style of
other sites. Where it is large, a parameter is sensitive to the domain and stays personal; all
others are averaged.

What is chosen where the paper leaves it open: F is the diagonal empirical Fisher information of the
model as the site trained it, over ``fisher_cases`` of the site's cases, or over a quarter of an
epoch where that is less, so that a mask costs no more than an epoch. R is divided by its largest
value in each tensor, and the share ``rho`` of all parameters with the largest values stays. Masks
are made after round ``warmup`` and again every ``refresh`` rounds. For each value the server takes
the mean over the sites for which it is invariant, weighted by their cases: sites send m_k ⊙ (w_k −
w) and m_k, and Σ p_k·m_k ⊙ (w_k − w) / Σ p_k·m_k is added to w. So the server needs sums alone, and
under encryption or SecAgg+ it learns for how much of the cases a value is invariant, and of no site
which values are its own. With ``protection.name=plain`` it sees every site's mask.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from federated.compression.base import largest
from federated.strategies.base import (
    OWN,
    Introduction,
    MeanNoise,
    Participation,
    Server,
    SiteStart,
    Strategy,
)
from federated.strategies.resfim.fisher import CASES_AT_ONCE, Diagonal, add_fisher, zeros
from federated.strategies.resfim.spectral_style import in_style, style_of
from federated.training.rule import LocalData, LocalRule, LocalWork
from federated.update import Arrays, Flags, Layout, Vector

MASK = "mask"


class SensitivityRule(LocalRule):
    """Leaves the gradients as they are and, in some rounds, finds the sensitive values afterwards.

    ``mask`` ``(size,)`` is then true for these values; otherwise it is ``None``.
    """

    def __init__(self, strategy: "ResFIM", start: SiteStart) -> None:
        self._strategy, self._start = strategy, start
        self.mask: Flags | None = None

    def after_training(self, model: nn.Module, data: LocalData) -> None:
        """Find the mask, in a round in which masks are made."""
        if self._strategy.is_due(self._start.round_number):
            self.mask = self._strategy.find_mask(self._start, model, data)


class ResFIM(Strategy):
    """Averaging of the values that are not sensitive to a site's style.

    ``rho`` is the share of parameters that stays at the site, and ``beta`` the share of the
    spectrum that is style. ``fisher_cases`` is the largest number of cases that F is computed over;
    a short epoch makes them fewer (``cases``). ``select`` is what the mask is chosen by: the
    residual, the Fisher information itself or, to compare with, chance.
    """

    name: Literal["resfim"] = "resfim"
    rho: float = Field(default=0.1, gt=0, lt=1)
    beta: float = Field(default=0.05, gt=0, lt=0.5)
    warmup: int = Field(default=1, ge=1)
    refresh: int = Field(default=5, ge=1)
    fisher_cases: int = Field(default=8, ge=1)
    select: Literal["residual", "fisher", "random"] = "residual"
    style_noise: MeanNoise | None = None

    def introduction(self) -> Introduction:
        """The style of a site's images: the mean of their low-frequency amplitudes."""
        return Introduction(partial(style_of, beta=self.beta), self.style_noise, nonnegative=True)

    def own_values(self, layout: Layout, memory: Arrays) -> Flags:
        """The values in the site's mask, ``(size,)``."""
        return np.asarray(memory.get(MASK, np.zeros(layout.size, np.uint8)), bool)

    def is_due(self, round_number: int) -> bool:
        """Whether masks are made after the local training of a round."""
        return round_number >= self.warmup and (round_number - self.warmup) % self.refresh == 0

    def cases(self, epoch: int) -> int:
        """The number of cases that F is computed over, at a site whose epoch has ``epoch`` cases.

        The gradient of a single case costs up to twice what a case in a batch does, and F and F̃
        take one each.
        """
        # An odd one would be alone: on a CPU torch takes three times as long for a single volume.
        quarter = epoch // 4 // CASES_AT_ONCE * CASES_AT_ONCE
        return min(self.fisher_cases, max(CASES_AT_ONCE, quarter))

    def find_mask(self, start: SiteStart, model: nn.Module, data: LocalData) -> Flags:
        """Which values ``(size,)`` of the layout are sensitive: the share ρ of the parameters."""
        parts = {name: np.zeros(shape, np.float32) for name, shape in start.layout.entries}
        parameters = {name for name, _ in model.named_parameters()}
        if self.select == "random":
            for part in parts.values():
                part[...] = torch.rand(part.shape, generator=data.generator).numpy()
        else:
            for name, value in self._difference(model, data).items():
                found = value.abs()
                parts[name] = (found / found.max().clamp(min=1e-30)).cpu().numpy()
        # Statistics are not parameters, and never the site's own.
        flat = [
            part.reshape(-1) if name in parameters else np.full(part.size, -1, np.float32)
            for name, part in parts.items()
        ]
        scores: Vector = np.concatenate(flat)
        mask = np.zeros(len(scores), bool)
        mask[largest(scores, round(self.rho * int((scores >= 0).sum())))] = True
        return mask

    def _difference(self, model: nn.Module, data: LocalData) -> Diagonal:
        """F̃ − F, or F, over some of the cases."""
        chosen = torch.randperm(data.count, generator=data.generator)[: self.cases(data.epoch)]
        images, targets = data.take(chosen)
        diagonal = zeros(model)
        if self.select == "fisher":
            add_fisher(diagonal, model, images, targets, data.loss)
            return diagonal
        known = data.styles()
        drawn = torch.randint(len(known), (len(images),), generator=data.generator)
        styles = np.stack([known[int(number)] for number in drawn])
        stylised = in_style(images, torch.from_numpy(styles).to(images.device), self.beta)
        add_fisher(diagonal, model, stylised, targets, data.loss)
        add_fisher(diagonal, model, images, targets, data.loss, factor=-1.0)
        return diagonal

    def sent_sizes(self, change: float) -> tuple[float, ...]:
        """Two parts: the update, and for which values it holds (0 or 1)."""
        return change, 1.0

    def personal_weights(self, weights: Vector, layout: Layout, memory: Arrays) -> Vector:
        """The global weights ``(size,)`` with the site's own values where it is sensitive."""
        if MASK not in memory:
            return weights
        own = weights.copy()
        own[memory[MASK].astype(bool)] = memory[OWN]
        return own

    def local_rule(self, model: nn.Module, start: SiteStart) -> LocalRule:
        """The rule of plain steps, with a look at the model afterwards."""
        return SensitivityRule(self, start)

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The vectors m_k ⊙ (w_k − w) and m_k in one, ``(2 * shared,)``, and nothing to keep."""
        invariant = (~self._mask(rule, start)).astype(np.float32)
        return np.concatenate([update * invariant, invariant]), {}

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """The mask ``(size,)`` as uint8, and the values in it; nothing before there is a mask."""
        mask = self._mask(rules[-1], start)
        return {MASK: mask.astype(np.uint8), OWN: ended[-1][mask]} if mask.any() else {}

    def server_step(self, server: Server, mean: Vector, who: Participation) -> Server:
        """Move each value by the mean over the sites for which it is invariant.

        ``mean`` is ``(2 * shared,)``: first the masked updates, then the masks. A value that is
        invariant for no site stays as it is.
        """
        update, invariant = np.split(mean, 2)
        # A count is a sum of weights, or rounding.
        least = min(who.weights.values()) / sum(who.weights.values()) / 2
        shared = invariant > least
        weights = server.weights.copy()
        weights[shared] += update[shared] / invariant[shared]
        return Server(weights, server.broadcast, server.memory)

    def trainable_on_join(self, start: SiteStart, model: nn.Module, data: LocalData) -> Flags:
        """The values ``(size,)`` that are sensitive at the site."""
        return self.find_mask(start, model, data)

    def _mask(self, rule: LocalRule, start: SiteStart) -> Flags:
        """The mask ``(size,)`` of this round, made now or before; all false before the first."""
        assert isinstance(rule, SensitivityRule)
        if rule.mask is not None:
            return rule.mask
        if MASK in start.memory:
            return start.memory[MASK].astype(bool)
        return np.zeros(start.layout.size, bool)
