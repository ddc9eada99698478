"""Clipping to a Euclidean norm, case by case.

What has no finite norm counts as zero: it could not be scaled down to the bound, and a sum that is
not a number would tell of the one case.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def clipped(vectors: Tensor, bound: float) -> Tensor:
    """The rows ``(n, width)`` scaled down to a norm of at most ``bound``.

    A row whose norm is not finite becomes zero.
    """
    norms = torch.linalg.vector_norm(vectors, dim=1)
    (sound,) = _finite([vectors], norms)
    return sound * _factors(norms, bound)[:, None]


def clip_and_sum(gradients: Sequence[Tensor], bound: float) -> tuple[list[Tensor], Tensor]:
    """The sum over cases of their gradients, each clipped to a norm of ``bound``.

    Args:
        gradients: ``(n, …)`` for each parameter. The norm of a case is that of all of them
            together; a case without a finite norm adds nothing.
        bound: the clipping norm, > 0.

    Returns:
        The sum for each parameter, and the norms before clipping, ``(n,)``.
    """
    of_parts = [torch.linalg.vector_norm(part.flatten(1), dim=1) for part in gradients]
    norms = torch.linalg.vector_norm(torch.stack(of_parts), dim=0)
    factors = _factors(norms, bound)
    sound = _finite(gradients, norms)
    return [torch.tensordot(factors, part, dims=1) for part in sound], norms


def _finite(parts: Sequence[Tensor], norms: Tensor) -> Sequence[Tensor]:
    """``parts`` ``(n, …)`` with zeros for the cases whose norm ``(n,)`` is not finite."""
    sound = torch.isfinite(norms)
    if sound.all():
        return parts  # a copy of all gradients would cost as much as their sum
    return [part.where(sound.view(-1, *[1] * (part.ndim - 1)), 0.0) for part in parts]


def _factors(norms: Tensor, bound: float) -> Tensor:
    # NaN would stay NaN, even times zero.
    factors: Tensor = bound / norms.nan_to_num(nan=0.0).clamp(min=bound)
    return factors
