"""Style as the low-frequency amplitude of an image's Fourier transform, in 2D and 3D.

Yang and Soatto 2020, "FDA: Fourier Domain Adaptation for Semantic Segmentation", Eq. 3: the central
block of the amplitude, a share β of each axis to either side of the origin, is exchanged for that
of another domain, while the phase stays. The inverse transform then has the content of this image
in that style. pFL-ResFIM (arXiv 2603.14848) uses it between sites.
"""

import torch
from torch import Tensor


def style_shape(spatial: tuple[int, ...], beta: float) -> tuple[int, ...]:
    """The sides of a style's block in values: 2⌊βN⌋ + 1 for an axis of N, at least 3."""
    return tuple(2 * max(1, int(beta * side)) + 1 for side in spatial)


def style_of(images: Tensor, beta: float) -> Tensor:
    """Low-frequency amplitudes ``(n, channels, *block)`` of images ``(n, channels, *spatial)``.

    The sides of the block are those of :func:`style_shape`; amplitudes are at least 0.
    """
    amplitude: Tensor = _spectrum(images).abs()[_block(images, beta)]
    return amplitude


def in_style(images: Tensor, styles: Tensor, beta: float) -> Tensor:
    """Images ``(n, channels, *spatial)`` with the amplitudes of ``styles``, one for each image.

    Args:
        images: ``(n, channels, *spatial)``.
        styles: ``(n, channels, *block)``.
        beta: the share β of each axis, in (0, 0.5).

    Raises:
        ValueError: the styles have another shape than :func:`style_of` gives for these images.
    """
    spectrum, block = _spectrum(images), _block(images, beta)
    if styles.shape != spectrum[block].shape:
        raise ValueError(f"styles of {tuple(styles.shape)} do not fit {tuple(images.shape)}")
    spectrum[block] = torch.polar(styles.to(images.dtype), spectrum[block].angle())
    axes = _axes(images)
    # What noise in a style takes from its symmetry would be imaginary.
    shown: Tensor = torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=axes), dim=axes).real
    return shown


def _axes(images: Tensor) -> tuple[int, ...]:
    return tuple(range(2, images.ndim))


def _spectrum(images: Tensor) -> Tensor:
    """The Fourier transform with its origin in the middle."""
    axes = _axes(images)
    shifted: Tensor = torch.fft.fftshift(torch.fft.fftn(images, dim=axes), dim=axes)
    return shifted


def _block(images: Tensor, beta: float) -> tuple[slice, ...]:
    """Where the low frequencies are in a spectrum."""
    spatial = tuple(images.shape[2:])
    middle = (
        slice(side // 2 - width // 2, side // 2 + width // 2 + 1)
        for side, width in zip(spatial, style_shape(spatial, beta), strict=True)
    )
    return slice(None), slice(None), *middle
