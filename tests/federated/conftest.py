"""What every test of the library shares."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from federated.strategies.base import SiteStart
from federated.update import Layout


def site_start(model: nn.Module, **given: object) -> SiteStart:
    """What a site starts from with the weights that a model holds."""
    layout = Layout.of(model)
    return SiteStart(layout, layout.flatten(model), **given)


# Values before a ReLU, and the two largest of a window, differ by at least so much of the largest:
# ten times float32's rounding behind the normalisations of the networks here.
MARGIN = 1e-5
KINKS = (nn.ReLU, nn.LeakyReLU, nn.MaxPool2d, nn.MaxPool3d)


def clear_of_kinks(model: nn.Module, inputs: Tensor) -> Tensor:
    """Which cases ``(n,)`` have one gradient whichever way a processor rounds.

    At the kink of a ReLU or a max-pooling the gradient jumps, and float32 may come out on the other
    side than float64: no fault of any kernel, so nothing to test kernels with.
    """
    exact, clear = copy.deepcopy(model).double().train(), torch.ones(len(inputs), dtype=bool)

    def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        values = given[0].detach()
        if isinstance(module, nn.ReLU | nn.LeakyReLU):
            nearest = values.abs().flatten(1).amin(dim=1)
        else:
            flat = values
            for axis in range(2, values.ndim):
                flat = flat.unfold(axis, 2, 2)
            best = flat.flatten(values.ndim).topk(2, dim=-1).values
            # Behind a LeakyReLU negative values and their rounding are a hundredth.
            apart = (best[..., 0] - best[..., 1]) * torch.where(best[..., 0] > 0, 1, 100)
            nearest = apart.flatten(1).amin(dim=1)
        clear.logical_and_(nearest > MARGIN * values.abs().flatten(1).amax(dim=1))

    for module in exact.modules():
        if isinstance(module, KINKS):
            module.register_forward_pre_hook(look)
    with torch.no_grad():
        exact(inputs.double())
    return clear


def case_names(count: int) -> list[str]:
    """Identities of so many cases, as private training asks for them."""
    return [f"case {number}" for number in range(count)]


@pytest.fixture(autouse=True)
def _same_draws(request, monkeypatch):
    """A test draws the same numbers whichever tests ran before it in this process."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))
