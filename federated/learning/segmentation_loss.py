"""The loss of segmentation: soft Dice and cross-entropy, for each case."""

import torch
from torch import Tensor, nn

# Of each level of deep supervision, finest first, relative to the one before.
COARSER = 0.5


def dice_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice loss (Milletari et al. 2016) plus cross-entropy, each case on its own.

    Dice is meaned over the classes but the background, cross-entropy over voxels.

    Args:
        logits: ``(n, classes, *spatial)``, or with deep supervision ``(n, levels, classes,
            *spatial)``, whose levels count 1, ½, ¼, … and are meaned by that.
        labels: ``(n, *spatial)`` integers in [0, classes).

    Returns:
        ``(n,)``, at least 0.
    """
    if logits.ndim == labels.ndim + 2:
        losses = torch.stack([dice_ce(level, labels) for level in logits.unbind(dim=1)])
        weights = COARSER ** torch.arange(len(losses), device=losses.device)
        return (losses * weights[:, None]).sum(dim=0) / weights.sum()
    # MONAI takes seconds to import, which only those who segment are to wait for.
    from monai.losses.dice import DiceLoss

    # MONAI's own one-hot code writes in place, which gradients of single cases by vmap cannot.
    classes = torch.arange(logits.shape[1], device=labels.device)
    one_hot = (labels.unsqueeze(-1) == classes).movedim(-1, 1).to(logits.dtype)
    dice = DiceLoss(include_background=False, softmax=True, reduction="none")
    overlap: Tensor = dice(logits, one_hot)
    entropy = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
    return overlap.flatten(1).mean(dim=1) + entropy.flatten(1).mean(dim=1)
