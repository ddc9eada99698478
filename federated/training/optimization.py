"""The optimiser of a site's round: learning rates, freezing, and the number of steps."""

import re
from math import ceil, cos, pi

import torch
from torch import nn

from federated.data.cases import merges_last_batch
from federated.errors import ConsiliumError
from federated.settings.sections import TrainingSettings
from federated.training.optimizers import SGD, AdamW
from federated.training.rule import LocalWork
from models import is_head
from models.norm import norm_tensors, normalise_in_rows


def learning_rate(settings: TrainingSettings, round_number: int, rounds: int) -> float:
    """The learning rate of a round, counted from 1.

    With ``cosine`` it falls from ``settings.lr`` in the first round towards 0 after the last one
    (Loshchilov and Hutter 2017, Eq. 5, with rounds for epochs). On non-IID sites FedAvg with a
    constant rate stays away from the optimum (Li et al. 2020, "On the Convergence of FedAvg on
    Non-IID Data", Theorem 4).
    """
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1.0 + cos(pi * (round_number - 1) / rounds))


def trained_parameters(
    model: nn.Module, settings: TrainingSettings, round_number: int
) -> frozenset[str]:
    """The names of the parameters that are trained in a round, counted from 1.

    Raises:
        ConsiliumError: ``training.trainable`` names a layer that the network does not have.
    """
    names = frozenset(name for name, _ in model.named_parameters())
    wanted: tuple[str, ...] = settings.trainable
    if round_number <= settings.freeze_rounds:
        wanted = ("head",)
    if not wanted:
        return names
    trained: frozenset[str] = frozenset()
    for layer in wanted:
        found = names & norm_tensors(model) if layer == "norm" else _below(layer, names)
        if not found:
            there = sorted({re.sub(r"(?<=\d)\..*|\.(weight|bias)$", "", name) for name in names})
            raise ConsiliumError(
                f"training.trainable names {layer!r}, which the network does not have. There are "
                f"norm, {', '.join(there)}."
            )
        trained |= found
    return trained


def _below(layer: str, names: frozenset[str]) -> frozenset[str]:
    return frozenset(name for name in names if name == layer or name.startswith(f"{layer}."))


def freeze(model: nn.Module, trained: frozenset[str]) -> None:
    """Freeze all parameters but ``trained``, and the statistics of BatchNorm that go with them.

    Call it after ``model.train()``, because a frozen BatchNorm has to stay in evaluation mode.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    if not all(parameter.requires_grad for parameter in model.parameters()):
        normalise_in_rows(model)
    for module in model.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and frozen:
            module.eval()


def make_optimizer(
    model: nn.Module, settings: TrainingSettings, lr: float
) -> torch.optim.Optimizer:
    """AdamW or SGD over what is not frozen; the backbone's rate is ``backbone_lr`` times ``lr``.

    Two groups are the simplest form of discriminative fine-tuning (Howard and Ruder 2018, Eq. 2).
    """
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts[is_head(name)].append(parameter)
    groups = [
        {"params": parameters, "lr": lr if head else lr * settings.backbone_lr}
        for head, parameters in parts.items()
        if parameters
    ]
    if settings.optimizer == "sgd":
        return SGD(groups, lr=lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    return AdamW(groups, lr=lr, weight_decay=settings.weight_decay)


def local_work(cases: int, settings: TrainingSettings, batch_norm: bool) -> LocalWork:
    """How much a site with ``cases`` training cases works in a round."""
    drawn = settings.drawn(cases)
    batches = ceil(drawn / settings.batch_size)
    batches -= merges_last_batch(drawn, settings.batch_size, batch_norm)
    momentum = settings.momentum if settings.optimizer == "sgd" else 0.0
    return LocalWork(settings.local_steps or settings.local_epochs * batches, momentum)


def expected_change(settings: TrainingSettings, steps: int) -> float:
    """About the largest change of a value in a round of ``steps`` steps.

    AdamW moves a value by about its learning rate in a step; for SGD this is a guess.
    """
    return settings.lr * steps
