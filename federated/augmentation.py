"""Random changes of training images, and which cases an epoch draws."""

from typing import Literal

import torch
import torchio as tio
from torch import Tensor

Augment = Literal["none", "flips", "torchio"]
Sampling = Literal["shuffle", "balanced"]


def augment(images: Tensor, how: Augment, generator: torch.Generator) -> Tensor:
    """Change a batch ``(n, channels, *spatial)`` of intensities in [0, 1].

    ``flips`` mirrors; ``torchio`` also rotates, scales, shifts, and changes gamma and noise
    (TorchIO, Pérez-García et al. 2021).
    """
    if how == "none":
        return images
    flipped = random_flips(images, generator)
    return flipped if how == "flips" else _scanner_like(flipped, generator)


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """Flip each case ``(channels, *spatial)`` along each axis with probability one half."""
    for axis in range(2, images.ndim):
        chosen = torch.rand(len(images), generator=generator) < 0.5
        chosen = chosen.to(images.device).view(-1, *[1] * (images.ndim - 1))
        images = torch.where(chosen, images.flip(axis), images)
    return images


def _scanner_like(images: Tensor, generator: torch.Generator) -> Tensor:
    flat = images.ndim == 4
    # A 2D image is a volume of one slice: it may only turn and shift within that slice.
    degrees = (0, 0, 0, 0, -10, 10) if flat else (-10, 10)
    translation = (-1, 1, -1, 1, 0, 0) if flat else (-1, 1)
    change = tio.Compose(
        [
            tio.RandomAffine(scales=0.1, degrees=degrees, translation=translation),
            tio.RandomGamma(log_gamma=0.2, p=0.5),
            tio.RandomNoise(std=(0, 0.03), p=0.5),
        ]
    )
    seed = int(torch.randint(2**62, (1,), generator=generator))
    result = torch.empty_like(images)
    # TorchIO draws from torch's global generator alone; it is put back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for index, image in enumerate(images.cpu()):
            volume = image.unsqueeze(-1) if flat else image
            changed = change(tio.ScalarImage(tensor=volume)).data
            result[index] = changed.reshape(image.shape).clamp(0.0, 1.0)
    return result


def draw_epoch(labels: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The order of cases in an epoch: indices, as many as there are cases.

    ``balanced`` draws with replacement so that every class a site has comes equally often.
    """
    if sampling == "shuffle":
        return torch.randperm(len(labels), generator=generator)
    probability = 1.0 / torch.bincount(labels)[labels].double()
    return torch.multinomial(probability, len(labels), replacement=True, generator=generator)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights of a site's loss, ``(classes,)``: n / (present classes · n_c), 0 for absent ones.

    With them every class a site has enters its loss alike.
    """
    counts = torch.bincount(labels, minlength=classes)
    present = int((counts > 0).sum())
    weights = len(labels) / (present * counts.clamp(min=1).float())
    return torch.where(counts > 0, weights, 0.0)
