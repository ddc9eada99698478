"""Scanner profiles: one fixed, site-specific change of appearance, as between real scanners.

A profile joins a gamma curve, a bias field, blur, anisotropic resolution and noise (TorchIO,
Pérez-García et al. 2021). Its parameters are drawn once for a site; only the noise differs from
case to case, and each case has a seed of its own for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from federated.data.dataset import Images
from federated.randomness import derive_seed, numpy_generator

if TYPE_CHECKING:
    import torchio as tio

BIAS_ORDER = 1
BIAS_COEFFICIENTS = 4  # of a polynomial of order 1 in three axes


@dataclass(frozen=True)
class ScannerProfile:
    """The fixed parameters of a site's scanner; intensities are relative to the range 0..1.

    ``blur`` is a standard deviation in voxels, ``downsampling`` a factor along ``axis``.
    """

    gamma: float
    bias: tuple[float, ...]
    blur: float
    axis: int
    downsampling: float
    noise: float
    noise_seed: int


def scanner_profile(seed: int, site: str, dims: int) -> ScannerProfile:
    """Draw a site's profile for images of ``dims`` axes; it depends on the arguments alone."""
    rng = numpy_generator(seed, purpose="scanner profile", site=site)
    return ScannerProfile(
        gamma=float(np.exp(rng.uniform(-0.35, 0.35))),
        bias=tuple(float(value) for value in rng.uniform(-0.4, 0.4, BIAS_COEFFICIENTS)),
        blur=float(rng.uniform(0.0, 0.8)),
        axis=int(rng.integers(dims)),
        downsampling=float(rng.uniform(1.0, 2.0)),
        noise=float(rng.uniform(0.0, 0.05)),
        noise_seed=derive_seed(seed, purpose="scanner noise", site=site) % 2**31,
    )


def show(image: torch.Tensor, profile: ScannerProfile, number: int) -> torch.Tensor:
    """An image ``(channels, *spatial)`` of intensities in [0, 1] as this scanner would show it.

    ``number`` tells cases apart; the same case always comes out equal.
    """
    import torchio as tio

    volume = image if image.ndim == 4 else image.unsqueeze(-1)
    shown = _transform(profile)(tio.ScalarImage(tensor=volume))
    noisy = tio.Noise(0.0, profile.noise, profile.noise_seed + number)(shown).data
    return noisy.reshape(image.shape).clamp(0.0, 1.0)


def noise_number(name: str) -> int:
    """A number for a case, from its name, so that its noise does not depend on its place."""
    return derive_seed(0, purpose=name) % 2**20


def _transform(profile: ScannerProfile) -> "tio.Transform":
    """Everything in the profile but the noise."""
    import torchio as tio

    return tio.Compose(
        [
            tio.Gamma(profile.gamma),
            tio.BiasField(list(profile.bias), BIAS_ORDER),
            tio.Blur((profile.blur,) * 3),
            tio.RandomAnisotropy(
                axes=(profile.axis,), downsampling=(profile.downsampling, profile.downsampling)
            ),
        ]
    )


def apply_profile(
    images: Images, profile: ScannerProfile, numbers: Sequence[int] | None = None
) -> Images:
    """The uint8 ``images`` ``(n, channels, *spatial)`` as this scanner would show them.

    ``numbers`` ``(n,)`` tell the cases apart, as in :func:`show`; where they are left out they are
    the cases' places.
    """
    result = np.empty_like(images)
    numbers = range(len(images)) if numbers is None else numbers
    for place, (number, image) in enumerate(zip(numbers, images, strict=True)):
        shown = show(torch.from_numpy(image.astype(np.float32) / 255.0), profile, number)
        result[place] = (shown * 255).round().byte().numpy()
    return result
