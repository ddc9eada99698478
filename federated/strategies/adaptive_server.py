"""Adaptive server optimisers, which take the mean update for a gradient.

Reddi et al. 2021, "Adaptive Federated Optimization", Algorithm 2: m ← β1·m + (1 − β1)·Δ; v by the
optimiser's own rule; x ← x + η·m / (√v + τ). As there, m starts at 0, v starts at τ², and there is
no bias correction.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.strategies.base import Server
from federated.update import Vector

Moment = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Hyperparameters:
    """The settings η, β1, β2 and τ of the paper."""

    server_lr: float
    beta1: float
    beta2: float
    tau: float


def open_moments(weights: Vector, tau: float) -> Server:
    """The server with ``weights`` ``(shared,)``, the first moment 0 and the second moment τ²."""
    moments = {"m": np.zeros_like(weights), "v": np.full_like(weights, tau**2)}
    return Server(weights, memory=moments)


def adaptive_step(
    server: Server,
    mean: Vector,
    of: Hyperparameters,
    second_moment: Callable[[Moment, Moment], Moment],
) -> Server:
    """One server step; ``second_moment`` makes the new v from the old v and Δ².

    Args:
        server: the server before it, with both moments ``(shared,)`` in its memory.
        mean: the mean update Δ, ``(shared,)``.
        of: the settings of the paper.
        second_moment: maps v and Δ², both ``(shared,)`` and float64, to the new v.
    """
    delta = mean.astype(np.float64)
    m = of.beta1 * server.memory["m"] + (1 - of.beta1) * delta
    v = second_moment(server.memory["v"].astype(np.float64), delta**2)
    weights = server.weights + of.server_lr * m / (np.sqrt(v) + of.tau)
    memory = {"m": m.astype(np.float32), "v": v.astype(np.float32)}
    return Server(weights.astype(np.float32), server.broadcast, memory)
