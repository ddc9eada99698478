"""An attack on updates: whose training case was this?

A step of training moves the weights against the gradient of each case it saw, so the update of a
site lines up with −∇ℓ of its own training cases more than of others (the gradient alignment of
Nasr, Shokri and Houmansadr 2019, Sec. IV, with nothing learned). The attacker has the update, the
weights it began from, and candidates with their labels.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from federated.data.dataset import Images, Labels, to_float
from federated.update import Layout, Vector

Scores = npt.NDArray[np.float64]


def alignment(
    model: nn.Module, updates: Sequence[Vector], images: Images, labels: Labels
) -> Scores:
    """For each update and case the cosine of the update and −(∇ℓ − mean ∇ℓ of the case's class).

    Without the mean, which all cases of a class have in common, what is left is the case's own.

    Args:
        model: with the weights that the updates began from, all of them trained.
        images: ``(n, channels, *spatial)`` uint8.

    Returns:
        ``(len(updates), n)`` in [−1, 1].
    """
    directions = torch.from_numpy(np.stack(updates).astype(np.float32))
    directions = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-30)
    # Two passes: the gradients of all cases together would not fit into memory.
    classes = [int(label) for label in labels]
    means = {label: torch.zeros(directions.shape[1]) for label in set(classes)}
    for gradient, label in zip(_gradients(model, images, labels), classes, strict=True):
        means[label] += gradient / classes.count(label)
    scores = []
    for gradient, label in zip(_gradients(model, images, labels), classes, strict=True):
        own = gradient - means[label]
        scores.append(-(directions @ own) / own.norm().clamp(min=1e-30))
    aligned: Scores = torch.stack(scores, dim=1).double().numpy()
    return aligned


def _gradients(model: nn.Module, images: Images, labels: Labels) -> Iterator[Tensor]:
    """∇ℓ of each case as a flat vector, in the order of the model's tensors."""
    parameters = dict(model.named_parameters())
    names = [name for name, _ in Layout.of(model).entries]
    model.eval()
    for image, label in zip(images, labels, strict=True):
        logits = model(torch.from_numpy(to_float(image[None])))
        loss = nn.functional.cross_entropy(logits, torch.tensor([int(label)]))
        parts = torch.autograd.grad(loss, [parameters[name] for name in names])
        yield torch.cat([part.reshape(-1) for part in parts])


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
