"""The local loop: what happens to a model at a site."""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from federated.data.cases import Batch, Cases
from federated.errors import ConsiliumError
from federated.randomness import torch_generator
from federated.settings.sections import TrainingSettings
from federated.training.feature_mean import set_mean, set_private_mean
from federated.training.objective import Loss, Objective
from federated.training.optimization import (
    freeze,
    learning_rate,
    make_optimizer,
    trained_parameters,
)
from federated.training.rule import LocalRule
from models import Centring, centring_of
from models.layout import in_channels_last

# How many cases pass the network at a time where no gradients are computed.
FEATURE_BATCH = 128
# What a loss in float16 is multiplied by at first; a power of 2, which changes no digit.
FIRST_SCALE = 2.0**16


class Gradients(Protocol):
    """What draws batches and computes their gradients instead of the ordinary loop."""

    def batches(self) -> Iterable[Tensor]:
        """The indices of the cases of each step, ``(n,)``; there may be none."""

    def generators(self, cases: Tensor) -> Sequence[torch.Generator]:
        """For each of these cases of the step, the generator of all that is random about it."""

    def compute(self, batch: Tensor, objective: Objective) -> None:
        """Write the gradient of a step into ``.grad``."""

    def noised_mean(
        self, batch: Tensor, vectors: Callable[[Tensor], Tensor], bound: float
    ) -> Tensor:
        """The noised mean ``(width,)`` of a vector of each case, instead of a step's gradient."""

    def close(self) -> None:
        """Leave the model as it was."""

    @property
    def clip(self) -> float | None:
        """The clipping norm that the next round begins with; ``None`` where it does not change."""


MakeGradients = Callable[[nn.Module, torch.optim.Optimizer], Gradients]

Result = TypeVar("Result")


@dataclass(frozen=True)
class LocalResult:
    """What came of a run of the local loop.

    Args:
        loss: the mean loss of the last local epoch, or of the part of it that was begun; ``None``
            where it is private.
        steps: the number of steps taken.
        clip: the clipping norm that private training has reached; ``None`` where it does not
            change.
    """

    loss: float | None
    steps: int
    clip: float | None = None


@dataclass(frozen=True)
class Turn:
    """One turn of training, which decides everything that is drawn and the learning rate.

    Args:
        seed: the experiment's.
        site: the name of the site that trains.
        round_number: the round, counted from 1.
        rounds: how many rounds there are in all.
        purpose: what the generator is for, where a site trains more than once in a round.
    """

    seed: int
    site: str
    round_number: int = 1
    rounds: int = 1
    purpose: str = "local training"

    def generator(self) -> torch.Generator:
        """A generator that depends on the turn alone."""
        return torch_generator(
            self.seed, purpose=self.purpose, round_number=self.round_number, site=self.site
        )


def choose_device(setting: str, worker: int = 0) -> torch.device:
    """The device for a setting; where there are several GPUs, workers take them in turn.

    Raises:
        ConsiliumError: ``cuda`` is asked for and there is no CUDA device.
    """
    available = torch.cuda.is_available()
    if setting == "cuda" and not available:
        raise ConsiliumError(
            "training.device=cuda, but torch sees no CUDA device. Use training.device=auto, or "
            "install a CUDA build of torch and its driver; `consilium doctor` shows both."
        )
    if setting == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", worker % torch.cuda.device_count())


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device, with channels last.

    On a GPU this process computes as :func:`compute_exactly` says from then on.
    """
    if device.type == "cuda":
        compute_exactly()
    return in_channels_last(model.to(device))


def compute_exactly() -> None:
    """Let CUDA compute with all bits of float32, and the same numbers each time, in this process.

    Left to itself, cuDNN multiplies with the 10 bits of TF32, so that a gradient could be longer
    than the clipping norm by a thousandth. And it takes kernels that add up in any order, so that a
    run which is resumed would end with other weights.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@dataclass(frozen=True)
class Step:
    """A step of the ordinary loop that is due.

    Args:
        model: the network, on its device.
        images: the inputs of the batch, ``(n, channels, *spatial)``, on that device.
        targets: what the network should predict, ``(n, …)``.
        objective: what is minimised.
        rule: what the strategy changes in the step.
        optimizer: takes it.
        precision: what its gradients are computed in.
    """

    model: nn.Module
    images: Tensor
    targets: Tensor
    objective: Objective
    rule: LocalRule
    optimizer: torch.optim.Optimizer
    precision: "Precision"

    def take(self) -> Tensor:
        """Take the step; return the loss of its batch before it, a scalar."""
        of_batch = partial(self.objective.of, self.model, self.images, self.targets)
        loss = self.precision.differentiate(of_batch, self.optimizer)
        self.rule.adjust_gradients(self.model.named_parameters())
        self.optimizer.step()
        return loss.detach()


# Training that says which step is due, goes on with the loss of its batch once somebody has taken
# the step, and has a result in the end.
Steps = Generator[Step, Tensor, Result]


def take_all(steps: Steps[Result]) -> Result:
    """Take each step when it is due; return the result."""
    try:
        step = next(steps)
        while True:
            step = steps.send(step.take())
    except StopIteration as end:
        result: Result = end.value
        return result


def train(
    model: nn.Module,
    cases: Cases,
    settings: TrainingSettings,
    rule: LocalRule,
    loss: Loss,
    turn: Turn,
    *,
    private: MakeGradients | None = None,
    stop_diverged: bool = True,
) -> LocalResult:
    """Train ``model`` in place on a site's training cases, for the epochs or steps of a round.

    The order of cases and their augmentation come from the generator of the turn, so that the
    result does not depend on which worker runs it. Private training draws both case by case, from
    the site's secret. The optimiser starts afresh each round.

    Args:
        model: the network, on the device that it is trained on.
        cases: the site's training cases, at least one.
        settings: those of the local loop.
        rule: what the strategy changes in a step.
        loss: the loss of the task.
        turn: which turn of training it is.
        private: makes what computes gradients instead of the ordinary loop; that then also draws
            the batches and everything random about their cases.
        stop_diverged: whether a loss that is no longer finite is an error.

    Raises:
        ConsiliumError: the loss is no longer finite, or the device does not have the precision, or
            ``training.trainable`` names a layer that the network does not have.
    """
    given = (model, cases, settings, rule, loss, turn)
    return take_all(training_steps(*given, private=private, stop_diverged=stop_diverged))


def training_steps(
    model: nn.Module,
    cases: Cases,
    settings: TrainingSettings,
    rule: LocalRule,
    loss: Loss,
    turn: Turn,
    *,
    private: MakeGradients | None = None,
    stop_diverged: bool = True,
) -> Steps[LocalResult]:
    """The steps of :func:`train`. Private training takes its own at once: none is ever due.

    Args:
        model: the network, on the device that it is trained on.
        cases: the site's training cases, at least one.
        settings: those of the local loop.
        rule: what the strategy changes in a step.
        loss: the loss of the task.
        turn: which turn of training it is.
        private: makes what computes gradients instead of the ordinary loop.
        stop_diverged: whether a loss that is no longer finite is an error.

    Raises:
        ConsiliumError: as :func:`train` does.
    """
    generator, round_number = turn.generator(), turn.round_number
    device = next(model.parameters()).device
    model.train()
    freeze(model, trained_parameters(model, settings, round_number))
    optimizer = make_optimizer(model, settings, learning_rate(settings, round_number, turn.rounds))
    precision = Precision(settings.precision, device)
    gradients = private(model, optimizer) if private is not None else None

    def take(indices: Tensor) -> Batch:
        draws = generator if gradients is None else gradients.generators(indices)
        images, targets = cases.load_batch(indices, settings, draws)
        return images.to(device), targets.to(device)

    objective = Objective(take, loss, precision.autocast)
    # Found once: every later round builds on it.
    centring = centring_of(model) if round_number == 1 else None
    if gradients is not None:
        return _train_privately(model, gradients, optimizer, rule, objective, centring)
    if centring is not None:
        set_mean(model, centring, torch.split(torch.arange(len(cases)), FEATURE_BATCH), take)
    loss_sum, drawn, steps = 0.0, 0, 0
    most = settings.local_steps
    for _ in range(most or settings.local_epochs):
        if steps == most:
            break
        loss_sum, drawn = 0.0, 0
        epoch = cases.epoch(settings, has_batch_norm(model), generator)
        for images, targets in islice(epoch, most and most - steps):
            on_device = images.to(device), targets.to(device)
            batch_loss = yield Step(model, *on_device, objective, rule, optimizer, precision)
            loss_sum += float(batch_loss) * len(targets)
            drawn += len(targets)
            steps += 1
    mean_loss = loss_sum / drawn
    if stop_diverged and not np.isfinite(mean_loss):
        raise ConsiliumError(
            f"Training at {turn.site} in round {round_number} diverged: the loss is {mean_loss}. "
            "Lower training.lr."
        )
    return LocalResult(mean_loss, steps)


def _train_privately(
    model: nn.Module,
    gradients: Gradients,
    optimizer: torch.optim.Optimizer,
    rule: LocalRule,
    objective: Objective,
    centring: Centring | None,
) -> LocalResult:
    """Do the same with gradients that are clipped and noised; the loss would be a release too."""
    steps = 0
    try:
        batches = iter(gradients.batches())
        if centring is not None:
            set_private_mean(model, centring, next(batches), objective.take, gradients)
        for batch in batches:
            gradients.compute(batch, objective)
            rule.adjust_gradients(model.named_parameters())
            optimizer.step()
            steps += 1
    finally:
        gradients.close()
    return LocalResult(None, steps, gradients.clip)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model normalises over the cases of a batch."""
    return any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in model.modules())


class Precision:
    """Mixed precision: the forward pass has 16 bits, weights and sums have 32.

    float16 has a small range, so its loss is scaled up before the backward pass (Micikevicius et
    al. 2018), and the gradients are scaled down again before a strategy sees them. Where they did
    not fit, the step is computed again with half the scale: a round takes as many steps as the
    server counts on, and no strategy sees a gradient that is not a number.

    Args:
        name: ``float32``, ``bfloat16`` or ``float16``.
        device: what is computed on.

    Raises:
        ConsiliumError: the device does not have it.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "float16" and device.type != "cuda":
            raise ConsiliumError(
                "training.precision=float16 needs a CUDA device. Use bfloat16 or float32."
            )
        self.type = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(name)
        self.device = device
        self.scale = FIRST_SCALE if name == "float16" else 1.0

    def autocast(self) -> torch.autocast:
        """In which the forward pass is computed."""
        return torch.autocast(self.device.type, self.type, enabled=self.type is not None)

    def differentiate(self, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        """Leave the gradients of a loss in ``.grad``, and return the loss, a scalar."""
        while True:
            optimizer.zero_grad(set_to_none=True)
            value = loss()
            torch.autograd.backward(value * self.scale)
            if self.scale == 1:
                return value
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            found = [p.grad.div_(self.scale) for p in parameters if p.grad is not None]
            if torch.stack([gradient.isfinite().all() for gradient in found]).all():
                return value
            self.scale /= 2
