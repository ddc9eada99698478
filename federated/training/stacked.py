"""Several trainings side by side: steps that are due at the same time, taken in one call.

Each training has a network of its own. Where batches have one shape, torch's vmap computes the
networks over their stacked weights, so that there are as many kernels as for one of them: on a GPU,
which small networks hardly use, that takes less time.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from federated.errors import ConsiliumError
from federated.training.loop import Result, Step, Steps


def take_together(trainings: Mapping[str, Steps[Result]]) -> dict[str, Result | ConsiliumError]:
    """Take the steps of several trainings, each of which gets what it would get alone.

    Equal up to rounding, that is, which depends on how many are computed in one call.

    Args:
        trainings: by the names of their sites. The networks are made alike and none is in two of
            them.

    Returns:
        The result of each, or the error with which it ended: it ends no other one.
    """
    due: dict[str, Step] = {}
    ended: dict[str, Result | ConsiliumError] = {}

    def go_on(name: str, loss: Tensor | None) -> None:
        try:
            due[name] = next(trainings[name]) if loss is None else trainings[name].send(loss)
        except StopIteration as end:
            ended[name] = end.value
        except ConsiliumError as error:
            ended[name] = error

    for name in trainings:
        go_on(name, None)
    while due:
        losses = _take_all_due(due)
        due.clear()
        for name, loss in losses.items():
            go_on(name, loss)
    return ended


def _take_all_due(due: Mapping[str, Step]) -> dict[str, Tensor]:
    """Take a step of each training; return the losses of their batches."""
    alike: dict[tuple[torch.Size, torch.Size], list[str]] = {}
    for name, step in due.items():
        alike.setdefault((step.images.shape, step.targets.shape), []).append(name)
    losses: dict[str, Tensor] = {}
    for names in alike.values():
        steps = [due[name] for name in names]
        taken = take_stacked(steps) if len(steps) > 1 else [steps[0].take()]
        losses |= dict(zip(names, taken, strict=True))
    return {name: losses[name] for name in due}


def take_stacked(steps: Sequence[Step]) -> list[Tensor]:
    """Take steps whose batches have one shape in one call; return the losses of their batches.

    Each loss is computed by its own training's function, which may weight classes by that site's
    cases.
    """
    for step in steps:
        # The configuration refuses all but float32.
        assert step.precision.type is None
        step.optimizer.zero_grad(set_to_none=True)
    logits = stacked_logits([step.model for step in steps], [step.images for step in steps])
    losses = [
        step.objective.loss(own.float(), step.targets, "mean")
        for step, own in zip(steps, logits, strict=True)
    ]
    # No loss depends on another network, so each gets its own gradient.
    torch.autograd.backward(losses)
    for step in steps:
        step.rule.adjust_gradients(step.model.named_parameters())
    step_together([step.optimizer for step in steps])
    return [loss.detach() for loss in losses]


def stacked_logits(models: Sequence[nn.Module], images: Sequence[Tensor]) -> Sequence[Tensor]:
    """What each network gives for its own images, by one call for all of them.

    Gradients reach each network's own parameters, and its buffers change as by a call of its own.

    Args:
        models: at least two, made alike and in the same mode, with no layer that draws at random.
        images: the inputs of each, all of one shape ``(n, channels, *spatial)``.
    """

    def of_one(weights: dict[str, Tensor], buffers: dict[str, Tensor], image: Tensor) -> Tensor:
        logits: Tensor = functional_call(models[0], (weights, buffers), (image,))
        return logits

    weights = _stacked([dict(model.named_parameters()) for model in models])
    own_buffers = [dict(model.named_buffers()) for model in models]
    buffers = _stacked(own_buffers)
    logits: Tensor = vmap(of_one, randomness="error")(weights, buffers, _stack(images))
    with torch.no_grad():
        for place, own in enumerate(own_buffers):
            for name, buffer in own.items():
                buffer.copy_(buffers[name][place])
    return logits.unbind()


def _stacked(tensors: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: _stack([own[name] for own in tensors]) for name in tensors[0]}


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    # vmap's normalisations know no channels last.
    return torch.stack(tuple(tensors)).contiguous()


def step_together(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Take a step of each of several optimisers of one kind, made with equal settings.

    They treat each value by itself, so that one of them over the parameters of all does the same,
    on a GPU in a few kernels for all.
    """
    groups = [
        {**alike[0], "params": [p for group in alike for p in group["params"]]}
        for alike in zip(*(each.param_groups for each in optimizers), strict=True)
    ]
    kind: Any = type(optimizers[0])
    both: torch.optim.Optimizer = kind(groups)
    for each in optimizers:
        both.state.update(each.state)
    both.step()
    for each in optimizers:
        for group in each.param_groups:
            each.state.update({p: both.state[p] for p in group["params"] if p in both.state})
