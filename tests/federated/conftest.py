"""What every test of the library shares."""

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_draws(request, monkeypatch):
    """A test draws the same numbers whichever tests ran before it in this process."""
    if hasattr(request.module, "RNG"):
        monkeypatch.setattr(request.module, "RNG", np.random.default_rng(0))
