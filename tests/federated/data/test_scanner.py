import numpy as np

from federated.data.scanner import apply_profile, scanner_profile
from tests.conftest import tiny_volumes

IMAGES = tiny_volumes()["train_images"][:3, None]


def test_a_site_keeps_its_profile_and_others_have_another():
    assert scanner_profile(0, "site-00", 3) == scanner_profile(0, "site-00", 3)
    assert scanner_profile(0, "site-00", 3) != scanner_profile(0, "site-01", 3)
    assert scanner_profile(0, "site-00", 3) != scanner_profile(1, "site-00", 3)


def test_a_profile_changes_every_image_in_the_same_way_each_time():
    profile = scanner_profile(0, "site-00", 3)
    shown = apply_profile(IMAGES, profile)
    np.testing.assert_array_equal(shown, apply_profile(IMAGES, profile))
    assert shown.shape == IMAGES.shape
    assert shown.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(shown, IMAGES, strict=True))


def test_the_structure_of_an_image_stays():
    """The bright cube is still there: the shown image correlates with the original."""
    for site in ("site-00", "site-01", "site-02"):
        shown = apply_profile(IMAGES, scanner_profile(0, site, 3))
        assert np.corrcoef(shown.ravel(), IMAGES.ravel())[0, 1] > 0.6


def test_2d_images_with_three_channels_are_taken():
    images = np.random.default_rng(0).integers(0, 255, (2, 3, 28, 28), dtype=np.uint8)
    assert apply_profile(images, scanner_profile(0, "site-00", 2)).shape == images.shape
