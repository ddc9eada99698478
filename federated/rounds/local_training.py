"""A site's part of a round: the passes of its strategy over its cases, and what comes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from federated.configuration.experiment import Experiment
from federated.data.cases import Cases
from federated.data.records import identities
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.privacy.noise import SecretRandom
from federated.privacy.site_level import finite_or_zero
from federated.randomness import torch_generator
from federated.strategies.base import SiteStart, Strategy
from federated.training.loop import (
    LocalResult,
    MakeGradients,
    Steps,
    Turn,
    has_batch_norm,
    take_all,
    training_steps,
)
from federated.training.masked_rule import MaskedRule
from federated.training.objective import Loss
from federated.training.optimization import local_work
from federated.training.rule import LocalData, LocalPass, LocalRule, LocalWork
from federated.update import Arrays, Flags, ModelUpdate, Scalars, Vector

# The name, in a site's memory, of its clipping norm, where that is its own and changes.
CLIP = "clipping norm"

# The steps that train a model for a pass. It is given the pass, its rule and its number; that is
# ``None`` for the last pass of the round, whose result is sent.
TrainPass = Callable[[LocalPass, LocalRule, int | None], Steps[LocalResult]]


@dataclass(frozen=True)
class PrivateRound:
    """What makes a site's round private, once the round is entered in the ledger."""

    privacy: Private
    release: Release
    clip: float
    random: SecretRandom

    def make_gradients(self, cases: Cases) -> MakeGradients | None:
        """What makes the private gradients of training on these cases; ``None`` for the usual."""
        if self.privacy.unit != "record":
            return None
        return partial(
            self.privacy.gradients,
            release=self.release,
            cases=identities(cases.records),
            random=self.random,
            clip=self.clip,
        )

    def protect_update(self, update: Vector) -> tuple[Vector, Scalars]:
        """What the site sends instead of its update, and its ``ModelUpdate.scalars``.

        The update and what replaces it are ``(parts * shared,)``.
        """
        return self.privacy.protect_update(update, self.release, self.clip, self.random)


@dataclass(frozen=True)
class LocalTask:
    """What a site trains with: its cases, the network and its loss.

    ``styles`` reads the styles of the other sites, for a strategy that looks at them.
    """

    experiment: Experiment
    model: nn.Module
    cases: Cases
    loss: Loss
    styles: Callable[[], Sequence[Vector]]

    @property
    def device(self) -> torch.device:
        """The device that the network is on."""
        return next(self.model.parameters()).device

    @property
    def work(self) -> LocalWork:
        """How much the site trains in a round."""
        batch_norm = has_batch_norm(self.model)
        return local_work(len(self.cases), self.experiment.training, batch_norm)

    def local_data(self, start: SiteStart) -> LocalData:
        """The site's training cases in the form in which a strategy looks at them."""
        training = self.experiment.training
        generator = torch_generator(
            self.experiment.seed,
            purpose="a look",
            round_number=start.round_number,
            site=start.name,
        )

        def take(indices: Tensor) -> tuple[Tensor, Tensor]:
            images, targets = self.cases.load_batch(indices, training, generator)
            return images.to(self.device), targets.to(self.device)

        count = len(self.cases)
        drawn = training.drawn(count)
        return LocalData(count, drawn, take, self.loss, generator, self.styles)


def run_passes(
    strategy: Strategy,
    start: SiteStart,
    model: nn.Module,
    train_pass: TrainPass,
    after_pass: Callable[[LocalRule], None],
) -> Steps[tuple[LocalResult, list[Vector], list[LocalRule]]]:
    """The steps of all passes of a strategy, in order.

    Args:
        strategy: the experiment's.
        start: what the site starts from.
        model: the network, which is trained in place.
        train_pass: trains it for one pass.
        after_pass: lets a rule look at the trained model.

    Returns:
        The result of the last pass, and for every pass the weights ``(size,)`` that it ended with
        and its rule.
    """
    passes = strategy.passes(start)
    ended: list[Vector] = []
    rules: list[LocalRule] = []
    for number, one in enumerate(passes):
        if one.weights is not None:
            start.layout.load(model, one.weights)
        rule = one.rule(model)
        last = number == len(passes) - 1
        result = yield from train_pass(one, rule, None if last else number)
        after_pass(rule)
        ended.append(start.layout.flatten(model))
        rules.append(rule)
    return result, ended, rules


def finished(
    strategy: Strategy,
    start: SiteStart,
    ended: Sequence[Vector],
    rules: Sequence[LocalRule],
    work: LocalWork,
    moves: Flags | None = None,
) -> tuple[Vector, Arrays]:
    """What a site has to send after its passes, and what it keeps for its strategy.

    Args:
        strategy: the experiment's.
        start: what the site started from.
        ended: for every pass, the weights ``(size,)`` that it ended with.
        rules: for every pass, its rule.
        work: how much the site trained.
        moves: which values the last pass may move, ``(size,)``, or ``None`` for all; the others
            count as unmoved.

    Returns:
        The vector ``(parts * shared,)`` to be sent, and the site's memory for the next round.
    """
    change = ended[-1] - start.weights
    if moves is not None:
        change[~moves] = 0  # weight decay touches every value
    sent, kept = strategy.site_update(change[start.layout.shared], rules[-1], work, start)
    return sent, {**kept, **strategy.personal_state(ended, rules, start)}


def train_round(
    task: LocalTask, start: SiteStart, moves: Flags | None, private: PrivateRound | None
) -> tuple[ModelUpdate, Arrays, float | None]:
    """Train a site's round; see :func:`round_steps`.

    Raises:
        ConsiliumError: as there.
    """
    return take_all(round_steps(task, start, moves, private))


def round_steps(
    task: LocalTask, start: SiteStart, moves: Flags | None, private: PrivateRound | None
) -> Steps[tuple[ModelUpdate, Arrays, float | None]]:
    """The steps of a site's round, which come to what it sends, what it keeps and its loss.

    The update is Δ_k = w_k − w on the shared values, where w are the global weights. Where privacy
    protects updates it is protected.

    Args:
        task: what the site trains with.
        start: what the site starts from.
        moves: which values ``(size,)`` the last pass, whose result is sent, may move; ``None`` for
            all.
        private: what makes the round private; ``None`` without privacy, and where the noise is
            added to the quantised values.

    Returns:
        What the site sends, what it keeps, and its loss, which is ``None`` where that is private.

    Raises:
        ConsiliumError: the loss is no longer finite, or the device does not have the precision.
    """
    experiment, layout = task.experiment, start.layout
    settings, privacy = experiment.training, experiment.privacy

    def train_pass(one: LocalPass, rule: LocalRule, number: int | None) -> Steps[LocalResult]:
        last = number is None
        # The passes before the last draw other batches.
        purpose = "local training" if last else f"local training, pass {number}"
        own = {"local_epochs": one.epochs, "local_steps": None} if one.epochs else {}
        return training_steps(
            task.model,
            task.cases,
            settings.model_copy(update=own),
            rule if moves is None or not last else MaskedRule(rule, layout, moves),
            task.loss,
            Turn(experiment.seed, start.name, start.round_number, start.rounds, purpose),
            private=private.make_gradients(task.cases) if private else None,
            # Of a private site even that it stopped would be told.
            stop_diverged=privacy.unit is None,
        )

    result, ended, rules = yield from run_passes(
        experiment.strategy,
        start,
        task.model,
        train_pass,
        lambda rule: rule.after_training(task.model, task.local_data(start)),
    )
    sent, kept = finished(experiment.strategy, start, ended, rules, task.work, moves)
    scalars: Scalars = {}
    if private:
        sent, scalars = private.protect_update(sent)
    elif privacy.noise_in_sum:
        sent = finite_or_zero(sent)
    if result.clip is not None:
        # An outcome of the mechanism, as the update is: it tells no more.
        kept = {**kept, CLIP: np.array([result.clip], np.float32)}
    update = ModelUpdate(start.name, start.round_number, len(task.cases), sent, scalars)
    return update, kept, result.loss
