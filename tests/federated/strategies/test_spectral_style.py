"""Styles: what they are, how they are worn, and that they do not show an image."""

import numpy as np
import pytest
import torch

from federated.strategies.resfim.spectral_style import in_style, style_of, style_shape

BETA = 0.1
SHAPES = [(32, 40), (16, 20, 24)]


def images(shape, count=3, seed=0):
    """Smooth blobs: as in pictures of a body, most of the amplitude is at low frequencies."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in shape), indexing="ij")
    found = []
    for _ in range(count):
        image = torch.zeros(shape)
        for _ in range(6):
            middle = torch.rand(len(shape), generator=generator) * 1.6 - 0.8
            width = 0.1 + 0.3 * torch.rand(1, generator=generator)
            distance = sum((axis - m) ** 2 for axis, m in zip(axes, middle, strict=True))
            image = image + torch.exp(-distance / width**2)
        found.append(image)
    return torch.stack(found).unsqueeze(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_in_its_own_style_is_itself(shape):
    own = images(shape)
    torch.testing.assert_close(in_style(own, style_of(own, BETA), BETA), own, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_in_another_style_has_that_style_and_its_own_phase(shape):
    own, other = images(shape), 2 * images(shape, seed=1) + 1
    shown = in_style(own, style_of(other, BETA), BETA)
    torch.testing.assert_close(style_of(shown, BETA), style_of(other, BETA), rtol=1e-3, atol=1e-2)
    axes = tuple(range(2, own.ndim))
    before, after = (torch.fft.fftn(each, dim=axes) for each in (own, shown))
    strong = (before.abs() > 1) & (after.abs() > 1)
    torch.testing.assert_close(before[strong].sgn(), after[strong].sgn(), atol=2e-3, rtol=0)


def test_a_style_is_a_small_block_of_each_channel():
    assert style_shape((64, 100), 0.05) == (7, 11)
    assert style_shape((8, 8), 0.01) == (3, 3)  # never the mean alone
    both = images((32, 40)).expand(-1, 2, -1, -1)
    assert style_of(both, BETA).shape == (3, 2, 7, 9)


def test_a_style_of_another_size_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        in_style(images((32, 40)), torch.ones(3, 1, 3, 3), BETA)


def similarity(one, other):
    """Structural similarity of two images, each scaled to [0, 1]."""
    from monai.metrics.regression import compute_ssim_and_cs

    scaled = []
    for image in (one, other):
        low, high = image.min(), image.max()
        scaled.append(((image - low) / (high - low).clamp(min=1e-9))[None])
    found, _ = compute_ssim_and_cs(
        *scaled,
        spatial_dims=2,
        data_range=torch.tensor(1.0),
        kernel_size=(7, 7),
        kernel_sigma=(1.5, 1.5),
    )
    return float(found.mean())


class TestWhatAStyleShows:
    """An attacker who has a site's style tries to make its images of it.

    The best that can be done without phases is to try some: none, those of other images, random
    ones. Compared is how similar the outcome is to the site's images, and to images of nobody.
    """

    SHAPE = (48, 48)

    def reconstructions(self, style):
        background = torch.zeros(1, 1, *self.SHAPE)
        background[..., 24, 24] = 1e-3  # all phases zero
        guesses = [background, *images(self.SHAPE, 8, seed=9).split(1)]
        guesses += [
            torch.rand(1, 1, *self.SHAPE, generator=torch.Generator().manual_seed(n))
            for n in range(4)
        ]
        return [in_style(guess, style, BETA) for guess in guesses]

    def advantage(self, made, own, others):
        """Mean over images of the best similarity to what was made, of the site's less others'."""
        best = [
            np.mean([max(similarity(one[0], image) for one in made) for image in group])
            for group in (own, others)
        ]
        return best[0] - best[1]

    def test_an_averaged_style_is_no_more_similar_to_the_sites_images_than_to_others(self):
        own, others = images(self.SHAPE, 12, seed=1), images(self.SHAPE, 12, seed=2)
        style = style_of(own, BETA).mean(dim=0, keepdim=True)
        assert abs(self.advantage(self.reconstructions(style), own, others)) < 0.03

    def test_with_the_phases_the_same_frequencies_would_show_them(self):
        """What keeps the images is that no phase is sent, and no single image's style."""
        own, others = images(self.SHAPE, 12, seed=1), images(self.SHAPE, 12, seed=2)
        flat = torch.fft.fftshift(torch.fft.fftn(own, dim=(2, 3)), dim=(2, 3))
        low = torch.zeros_like(flat)
        low[..., 20:29, 20:29] = flat[..., 20:29, 20:29]
        made = torch.fft.ifftn(torch.fft.ifftshift(low, dim=(2, 3)), dim=(2, 3)).real
        assert self.advantage(list(made.split(1)), own, others) > 0.1
