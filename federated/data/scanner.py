"""Scanner profiles: one fixed, site-specific change of appearance, as between real scanners.

A profile joins a gamma curve, a bias field, blur, anisotropic resolution and noise (TorchIO,
Pérez-García et al. 2021). Its parameters are drawn once for a site; only the noise differs from
case to case, and that by a seed of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torchio as tio

from federated.config import Experiment
from federated.data.dataset import Dataset, Images, Labels, Split
from federated.data.partition import Partition
from federated.randomness import derive_seed, numpy_generator

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
    """Draw a site's profile; it depends on the arguments alone."""
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


def apply_profile(images: Images, profile: ScannerProfile) -> Images:
    """Return ``images`` ``(n, channels, *spatial)`` as this scanner would show them.

    Case i of equal input and profile always comes out equal.
    """
    fixed = tio.Compose(
        [
            tio.Gamma(profile.gamma),
            tio.BiasField(list(profile.bias), BIAS_ORDER),
            tio.Blur((profile.blur,) * 3),
            tio.RandomAnisotropy(
                axes=(profile.axis,), downsampling=(profile.downsampling, profile.downsampling)
            ),
        ]
    )
    result = np.empty_like(images)
    for index, image in enumerate(images):
        tensor = torch.from_numpy(image.astype(np.float32) / 255.0)
        volume = tensor if tensor.ndim == 4 else tensor.unsqueeze(-1)
        shown = fixed(tio.ScalarImage(tensor=volume))
        noisy = tio.Noise(0.0, profile.noise, profile.noise_seed + index)(shown).data
        result[index] = (noisy.reshape(tensor.shape).clamp(0.0, 1.0) * 255).round().byte().numpy()
    return result


def site_images(
    experiment: Experiment, dataset: Dataset, partition: Partition, site: str, split: Split
) -> tuple[Images, Labels]:
    """A site's images and labels in a split, as its scanner shows them if profiles are on."""
    indices = list(partition.sites[site][split])
    images = dataset.images[split][indices]
    if experiment.sites.scanner_shift and indices:
        profile = scanner_profile(experiment.seed, site, dataset.info.dims)
        images = apply_profile(images, profile)
    return images, dataset.labels[split][indices]
