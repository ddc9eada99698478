"""The loss of segmentation: soft Dice and cross-entropy, for each case."""

import torch
from torch import Tensor, nn

# The weight of a level of deep supervision relative to the one before it, from the finest on.
COARSER = 0.5


def dice_ce(logits: Tensor, labels: Tensor) -> Tensor:
    """The soft Dice loss (Milletari et al. 2016) plus the cross-entropy, for each case on its own.

    Dice is averaged over all classes but the background, the cross-entropy over voxels.

    Args:
        logits: ``(n, classes, *spatial)``, or with deep supervision ``(n, levels, classes,
            *spatial)``; the levels then have the weights 1, ½, ¼, … in a weighted mean.
        labels: ``(n, *spatial)`` integers in [0, classes).

    Returns:
        The losses ``(n,)``, each at least 0.
    """
    if logits.ndim == labels.ndim + 2:
        losses = torch.stack([dice_ce(level, labels) for level in logits.unbind(dim=1)])
        weights = COARSER ** torch.arange(len(losses), device=losses.device)
        return (losses * weights[:, None]).sum(dim=0) / weights.sum()
    # Importing MONAI takes seconds; only those who segment should wait for it.
    from monai.losses.dice import DiceLoss

    # MONAI's own one-hot code writes in place, which gradients of single cases by vmap cannot.
    classes = torch.arange(logits.shape[1], device=labels.device)
    one_hot = (labels.unsqueeze(-1) == classes).movedim(-1, 1).to(logits.dtype)
    dice = DiceLoss(include_background=False, softmax=True, reduction="none")
    overlap: Tensor = dice(logits, one_hot)
    entropy = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
    return overlap.flatten(1).mean(dim=1) + entropy.flatten(1).mean(dim=1)
