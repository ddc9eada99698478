"""What every test of the library shares."""

import numpy as np
import pytest
from torch import nn

from federated.strategies.strategy import SiteStart
from federated.update import Layout


def site_start(model: nn.Module, **given: object) -> SiteStart:
    """What a site starts from with the weights that a model holds."""
    layout = Layout.of(model)
    return SiteStart(layout, layout.flatten(model), **given)


def case_names(count: int) -> list[str]:
    """Identities of so many cases, as private training asks for them."""
    return [f"case {number}" for number in range(count)]


@pytest.fixture(autouse=True)
def _same_draws(request, monkeypatch):
    """A test draws the same numbers whichever tests ran before it in this process."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))
