"""The local loop: what happens to a model at a site, and how it is evaluated."""

from dataclasses import dataclass
from math import cos, pi

import numpy as np
import torch
from torch import Tensor, nn

from federated.config import TrainingSettings
from federated.data.dataset import Images, Labels, to_float
from federated.errors import ConsiliumError
from federated.metrics import Probabilities
from federated.randomness import torch_generator
from federated.strategies.strategy import Strategy

EVALUATION_BATCH = 128


@dataclass(frozen=True)
class LocalResult:
    """Mean training loss of the last local epoch, and the number of optimiser steps."""

    loss: float
    steps: int


def choose_device(setting: str, worker: int = 0) -> torch.device:
    """The device for a setting; with several GPUs, workers share them in turn.

    Raises:
        ConsiliumError: ``cuda`` is asked for and there is none.
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


def learning_rate(settings: TrainingSettings, round_number: int, rounds: int) -> float:
    """The learning rate of a round, counted from 1.

    ``cosine`` falls from ``settings.lr`` in the first round towards 0 after the last one
    (Loshchilov and Hutter 2017, Eq. 5, with rounds for epochs). On non-IID sites FedAvg with a
    constant rate stays away from the optimum (Li et al. 2020, "On the Convergence of FedAvg on
    Non-IID Data", Theorem 4).
    """
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1.0 + cos(pi * (round_number - 1) / rounds))


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """Move a model to a device with channels last, which halves a 3D step on a CPU."""
    model = model.to(device)
    for parameter in model.parameters():
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(parameter.ndim)
        if layout is not None:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return model


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each case ``(channels, *spatial)`` along each axis with probability one half."""
    for axis in range(2, images.ndim):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        chosen = chosen.to(images.device).view(-1, *[1] * (images.ndim - 1))
        images = torch.where(chosen, images.flip(axis), images)
    return images


def train(
    model: nn.Module,
    images: Images,
    labels: Labels,
    settings: TrainingSettings,
    strategy: Strategy,
    *,
    seed: int,
    round_number: int,
    rounds: int,
    site: str,
    device: torch.device,
) -> LocalResult:
    """Train ``model`` in place for ``settings.local_epochs`` epochs on a site's training cases.

    Order of cases and augmentation come from a generator of (seed, round, site), so that the
    result does not depend on which worker runs it. The optimiser starts afresh each round.

    Args:
        images: ``(n, channels, *spatial)`` uint8, n at least 1.
        labels: ``(n,)`` int64.

    Raises:
        ConsiliumError: the loss is no longer finite.
    """
    generator = torch_generator(
        seed, purpose="local training", round_number=round_number, site=site
    )
    optimizer = _make_optimizer(model, settings, learning_rate(settings, round_number, rounds))
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.train()
    losses: list[float] = []
    steps = 0
    for _ in range(settings.local_epochs):
        losses = []
        order = torch.randperm(len(images), generator=generator)
        for batch in _batches(order, settings.batch_size, has_batch_norm(model)):
            x = torch.from_numpy(to_float(images[batch.numpy()])).to(device)
            if settings.augment == "flips":
                x = random_flips(x, generator)
            y = torch.from_numpy(labels[batch.numpy()]).to(device)
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), y)
            torch.autograd.backward(loss)
            strategy.add_gradient(model.named_parameters(), anchor)
            optimizer.step()
            losses.append(float(loss.detach()) * len(batch))
            steps += 1
    mean_loss = sum(losses) / len(images)
    if not np.isfinite(mean_loss):
        raise ConsiliumError(
            f"Training at {site} in round {round_number} diverged: the loss is {mean_loss}. "
            "Lower training.lr."
        )
    return LocalResult(mean_loss, steps)


def predict(model: nn.Module, images: Images, device: torch.device, classes: int) -> Probabilities:
    """Class probabilities ``(n, classes)`` as float64, in evaluation mode; n may be 0."""
    model.eval()
    parts = [np.zeros((0, classes))]
    with torch.inference_mode():
        for start in range(0, len(images), EVALUATION_BATCH):
            x = torch.from_numpy(to_float(images[start : start + EVALUATION_BATCH])).to(device)
            parts.append(model(x).double().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether the model normalises over the cases of a batch."""
    return any(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in model.modules())


def _batches(order: Tensor, batch_size: int, at_least_two: bool) -> list[Tensor]:
    """Cut an epoch into batches; BatchNorm cannot train on a last batch of one case."""
    batches = list(torch.split(order, batch_size))
    if at_least_two and len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _make_optimizer(
    model: nn.Module, settings: TrainingSettings, lr: float
) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=settings.weight_decay)
