"""An attack on updates: whose training case was this?

A step of training moves the weights against the gradient of each case it saw, so the update of a
site is nearly a combination of the gradients of its own training cases. The attacker, who has the
update, the weights it began from, and candidates with their labels, asks how much of each
candidate's gradient is in it: least squares over all candidates at once, where the alignment with
one gradient at a time (Nasr, Shokri and Houmansadr 2019, Sec. IV) sees mostly what all cases have
in common.
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

# Of the mean squared norm of a gradient; two decades more or less change little.
RIDGE = 1e-2


def shares(model: nn.Module, updates: Sequence[Vector], images: Images, labels: Labels) -> Scores:
    """For each update the share a_i of every candidate in it: −Δ ≈ Σ a_i ∇ℓ_i, by ridge regression.

    With n candidates and p weights it takes n·p numbers of 4 bytes of memory.

    Args:
        model: with the weights that the updates began from, all of them trained.
        images: ``(n, channels, *spatial)`` uint8.

    Returns:
        ``(len(updates), n)``; higher is more of a member.
    """
    gradients = torch.stack(list(_gradients(model, images, labels)))
    products = (gradients @ gradients.T).double()
    seen = torch.from_numpy(np.stack(updates).astype(np.float32))
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products), dtype=torch.double)
    found: Scores = -torch.linalg.solve(products + ridge, (gradients @ seen.T).double()).T.numpy()
    return found


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
