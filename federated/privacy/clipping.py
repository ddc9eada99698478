"""Clipping to a Euclidean norm, case by case."""

from collections.abc import Sequence

import torch
from torch import Tensor


def clipped(vectors: Tensor, bound: float) -> Tensor:
    """Rows scaled down to a norm of at most ``bound``."""
    scaled: Tensor = vectors * _factors(torch.linalg.vector_norm(vectors, dim=1), bound)[:, None]
    return scaled


def clip_and_sum(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    """The sum over cases of their gradients, each clipped to a norm of ``bound``.

    Args:
        gradients: ``(n, …)`` for each parameter; a case's norm is that of all of them together.

    Returns:
        The sum for each parameter, and the norms before clipping, ``(n,)``.
    """
    of_parts = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in gradients]
    norms = torch.linalg.vector_norm(torch.stack(of_parts), dim=0)
    factors = _factors(norms, bound)
    return [torch.tensordot(factors, part, dims=1) for part in gradients], norms


def _factors(norms: Tensor, bound: float) -> Tensor:
    factors: Tensor = bound / norms.clamp(min=bound)
    return factors
