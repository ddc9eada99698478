"""An attack on updates: whose training case was this?

A step of training moves the weights against the gradient of each case it saw, so the update of a
site lines up with −∇ℓ of its own training cases more than of others (the gradient alignment of
Nasr, Shokri and Houmansadr 2019, Sec. IV, with nothing learned). The attacker has the update, the
weights it began from, and candidates with their labels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from federated.data.dataset import Images, Labels, to_float
from federated.update import Layout, Vector

Scores = npt.NDArray[np.float64]


def alignment(
    model: nn.Module, updates: Sequence[Vector], images: Images, labels: Labels
) -> Scores:
    """For each update and case the cosine of −∇ℓ at the model's weights and the update.

    Args:
        model: with the weights that the updates began from, all of them trained.
        images: ``(n, channels, *spatial)`` uint8.

    Returns:
        ``(len(updates), n)`` in [−1, 1].
    """
    layout = Layout.of(model)
    directions = torch.from_numpy(np.stack(updates).astype(np.float64))
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-30)
    parameters = dict(model.named_parameters())
    model.eval()
    scores = []
    for image, label in zip(images, labels, strict=True):
        logits = model(torch.from_numpy(to_float(image[None])))
        loss = nn.functional.cross_entropy(logits, torch.tensor([int(label)]))
        gradients = torch.autograd.grad(loss, [parameters[name] for name, _ in layout.entries])
        gradient = torch.cat([part.reshape(-1).double() for part in gradients])
        scores.append(-(directions @ gradient) / gradient.norm().clamp(min=1e-30))
    aligned: Scores = torch.stack(scores, dim=1).numpy()
    return aligned


def advantage(scores: Scores, member: npt.NDArray[np.bool_], labels: Labels) -> float:
    """The AUC of telling members from others of the same class, meaned over classes; 0.5 is chance.

    Classes of which all or none are members say nothing and are left out: sites differ in their
    shares of the classes, and the attack is not to be credited with guessing by those.
    """
    found = [
        roc_auc_score(member[labels == label], scores[labels == label])
        for label in np.unique(labels)
        if 0 < member[labels == label].sum() < (labels == label).sum()
    ]
    return float(np.mean(found)) if found else 0.5
