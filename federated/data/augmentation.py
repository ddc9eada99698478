"""Random changes of training images, and which cases an epoch draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from federated.data.nnunet_augmentation import nnunet_changes
from federated.randomness import Draws, global_draws
from federated.settings.sections import Augment, Sampling

if TYPE_CHECKING:
    import torchio as tio


def augment(images: Tensor, how: Augment, draws: Draws) -> Tensor:
    """Change a batch of images ``(n, channels, *spatial)`` with intensities in [0, 1] at random.

    ``flips`` mirrors; ``torchio`` also rotates, scales, shifts, and changes gamma and noise
    (TorchIO, Pérez-García et al. 2021). With a generator for each case, a case comes out the same
    whatever else is in the batch.

    Args:
        images: ``(n, channels, *spatial)``.
        how: which changes are made; ``none`` gives the images themselves.
        draws: one generator, or one for each case.
    """
    if how == "none":
        return images
    flipped = random_flips(images, draws)
    if how == "flips":
        return flipped
    if isinstance(draws, torch.Generator):
        return _scanner_like(flipped, draws)
    cases = zip(torch.split(flipped, 1), draws, strict=True)
    return torch.cat([flipped[:0], *(_scanner_like(case, own) for case, own in cases)])


def augment_pair(
    images: Tensor, masks: Tensor, how: Augment, mirrored: Sequence[int], draws: Draws
) -> tuple[Tensor, Tensor]:
    """Change normalised images and their masks at random; a mask moves as its image does.

    ``nnunet`` are the changes of :mod:`federated.data.nnunet_augmentation` after the flips.

    Args:
        images: ``(n, channels, *spatial)``.
        masks: ``(n, *spatial)``.
        how: as in :func:`augment`.
        mirrored: the spatial axes along which cases are flipped, counted from 0.
        draws: one generator, or one for each case.

    Returns:
        The images ``(n, channels, *spatial)``, and the masks ``(n, *spatial)`` as int64.
    """
    if how == "none":
        return images, masks.long()
    both = torch.cat([images, masks.unsqueeze(1).float()], dim=1)
    flipped = random_flips(both, draws, mirrored)
    images, masks = flipped[:, :-1], flipped[:, -1].long()
    if how == "flips":
        return images, masks
    moves = nnunet_changes if how == "nnunet" else _pairs_moved
    if isinstance(draws, torch.Generator):
        return moves(images, masks, draws)
    cases = zip(torch.split(images, 1), torch.split(masks, 1), draws, strict=True)
    moved = [moves(image, mask, own) for image, mask, own in cases]
    return (
        torch.cat([images[:0], *(image for image, _ in moved)]),
        torch.cat([masks[:0], *(mask for _, mask in moved)]),
    )


def _pairs_moved(
    images: Tensor, masks: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """TorchIO's changes of one case after the other."""
    import torchio as tio

    flat = images.ndim == 4
    change = _scanner_changes(flat)
    changed = []
    with global_draws(generator):
        for image, mask in zip(images, masks, strict=True):
            subject = tio.Subject(
                image=tio.ScalarImage(tensor=image.unsqueeze(-1) if flat else image),
                mask=tio.LabelMap(tensor=mask.view(1, *mask.shape, *[1] * flat)),
            )
            moved = change(subject)
            changed.append((moved.get_image("image").data, moved.get_image("mask").data[0]))
    return (
        torch.stack([image.reshape(images.shape[1:]) for image, _ in changed]),
        torch.stack([mask.reshape(masks.shape[1:]) for _, mask in changed]).long(),
    )


def random_flips(images: Tensor, draws: Draws, axes: Sequence[int] | None = None) -> Tensor:
    """Flip each case ``(channels, *spatial)`` along each axis with probability one half.

    ``images`` are ``(n, channels, *spatial)``. ``axes`` are spatial ones, counted from 0; all of
    them where they are left out.
    """
    for axis in range(images.ndim - 2) if axes is None else axes:
        chosen = _uniform(len(images), draws) < 0.5
        chosen = chosen.to(images.device).view(-1, *[1] * (images.ndim - 1))
        images = torch.where(chosen, images.flip(axis + 2), images)
    return images


def _uniform(cases: int, draws: Draws) -> Tensor:
    """A number in [0, 1) for each case, ``(cases,)``."""
    if isinstance(draws, torch.Generator):
        return torch.rand(cases, generator=draws)
    numbers = torch.empty(cases)
    for case, own in enumerate(draws):
        numbers[case].uniform_(generator=own)
    return numbers


def _scanner_changes(flat: bool) -> "tio.Transform":
    import torchio as tio

    # A 2D image is a volume of one slice: it may only turn and shift within that slice.
    degrees = (0, 0, 0, 0, -10, 10) if flat else (-10, 10)
    translation = (-1, 1, -1, 1, 0, 0) if flat else (-1, 1)
    return tio.Compose(
        [
            tio.RandomAffine(scales=0.1, degrees=degrees, translation=translation),
            tio.RandomGamma(log_gamma=0.2, p=0.5),
            tio.RandomNoise(std=(0, 0.03), p=0.5),
        ]
    )


def _scanner_like(images: Tensor, generator: torch.Generator) -> Tensor:
    import torchio as tio

    flat = images.ndim == 4
    change = _scanner_changes(flat)
    result = torch.empty_like(images)
    with global_draws(generator):
        for index, image in enumerate(images.cpu()):
            volume = image.unsqueeze(-1) if flat else image
            changed = change(tio.ScalarImage(tensor=volume)).data
            result[index] = changed.reshape(image.shape).clamp(0.0, 1.0)
    return result


def draw_epoch(labels: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The order of cases in an epoch: indices ``(n,)`` for labels ``(n,)``.

    ``balanced`` draws with replacement so that every class that a site has comes equally often.
    """
    if sampling == "shuffle":
        return torch.randperm(len(labels), generator=generator)
    probability = 1.0 / torch.bincount(labels)[labels].double()
    return torch.multinomial(probability, len(labels), replacement=True, generator=generator)


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """The weights ``(classes,)`` of a site's loss, for labels ``(n,)``.

    A class with n_c cases has n / (present classes · n_c), and a class without cases has 0. With
    these weights every class that a site has enters its loss alike.
    """
    counts = torch.bincount(labels, minlength=classes)
    present = int((counts > 0).sum())
    weights = len(labels) / (present * counts.clamp(min=1).float())
    return torch.where(counts > 0, weights, 0.0)
