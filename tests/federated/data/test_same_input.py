"""A scale and an offset of the intensities change nothing of what a network is given."""

import dataclasses

import nibabel
import numpy as np
import pytest
import torch
from cachetools import LRUCache
from PIL import Image

from federated.data.folders.families import FAMILIES, CaseFiles
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case, prepare_volumes
from federated.data.folders.segmented_cases import SegmentedCases, ShownCase
from federated.data.folders.volume import Volume
from federated.data.scanner import scanner_profile
from federated.errors import ConsiliumError
from federated.settings.sections import TrainingSettings
from tests.conftest import REAL_DATA

CHANGES = {
    "times 10": lambda x: 10 * x,
    "plus 1000": lambda x: x + 1000,
    "minus 1024": lambda x: x - 1024,
    "z-scored": lambda x: (x - x.mean()) / x.std(),
    "plus a million": lambda x: x + 1e6,
    "a billionth": lambda x: 1e-9 * x,
    "into 0..1": lambda x: (x - x.min()) / (x.max() - x.min()),
}
# Brighter than nothing everywhere, as the inside of a body is.
VALUES = 300 + 40 * np.random.default_rng(0).random((1, 23, 31, 18))


def whole(family, values, profile=None):
    channels = family.channels
    if family.dims == 2:
        volumes = [Volume(np.repeat(values[..., 9], channels, 0), None)]
    else:
        volumes = [Volume(values, np.eye(4))] * channels
    return prepare_volumes(family, "x", volumes, None, profile, 3).whole


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("scanner", [False, True])
@pytest.mark.parametrize("name", ["hippocampus", "brain", "retina", "skin"])
def test_the_network_is_given_the_same(name, scanner, change):
    family = FAMILIES[name]
    profile = scanner_profile(0, "site-01", family.dims) if scanner else None
    plain = whole(family, VALUES, profile)
    changed = whole(family, CHANGES[change](VALUES), profile)
    torch.testing.assert_close(changed, plain, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_that_is_background_nearly_everywhere_is_no_exception(change):
    values = np.zeros((1, 30, 30, 30))
    values[0, 10:12, 10:12, 10:12] = 5.0
    plain = whole(FAMILIES["hippocampus"], values)
    assert plain.max() > 1
    changed = whole(FAMILIES["hippocampus"], CHANGES[change](values))
    torch.testing.assert_close(changed, plain, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_integers_and_reals_of_a_file_give_the_same(tmp_path, kind):
    values = np.random.default_rng(1).integers(0, 900, (20, 24, 18))
    offset = {np.int32: 10**8, np.float64: 10**8, np.float32: 10**4}.get(kind, 1000)

    def image(array):
        nibabel.save(nibabel.Nifti1Image(array.astype(kind), np.eye(4)), tmp_path / "a.nii")
        case = CaseFiles("a", (tmp_path / "a.nii",), None, "a")
        return prepare_case(FAMILIES["hippocampus"], case).whole

    torch.testing.assert_close(image(values + offset), image(values), atol=1e-5, rtol=0)


def test_around_an_image_there_is_its_own_background():
    for name in ("hippocampus", "brain", "retina"):
        family = FAMILIES[name]
        case = whole(family, VALUES)
        middle = case[(slice(None), *(slice(n // 2 - 4, n // 2 + 4) for n in case.shape[1:]))]
        for channel, image in zip(case, middle, strict=True):
            corner = channel[(0,) * family.dims]
            assert corner == channel.min()
            assert corner < image.mean() - 0.1
    # Statistics are those of the image, not of what is put around it.
    case = prepare_volumes(FAMILIES["hippocampus"], "x", [Volume(VALUES, np.eye(4))])
    geometry = case.geometry
    inner = case.whole[
        (0, *(slice(a, a + n) for a, n in zip(geometry.before, geometry.resampled, strict=True)))
    ]
    assert float(inner.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inner.std()) == pytest.approx(1, abs=1e-3)


def test_around_a_ct_there_is_the_lower_end_of_its_window():
    family = dataclasses.replace(FAMILIES["kidney"], spacing=(1.0, 1.0, 1.0))
    case = whole(family, VALUES - 300)
    assert case[0, 0, 0, 0] == 0
    assert case.min() == 0
    inner = case[0, 48 - 11 : 48 + 11, 48 - 15 : 48 + 15, 48 - 9 : 48 + 9]
    assert inner.min() > 0.2


@pytest.mark.parametrize("change", [lambda x: x / 1000 - 0.2, lambda x: x * 0 + x % 2 + 500])
def test_intensities_that_are_no_hounsfield_units_are_refused(change):
    with pytest.raises(ConsiliumError, match=r"takes Hounsfield units.*-79\.\.304"):
        whole(FAMILIES["kidney"], change(VALUES))


def test_pictures_of_more_bits_give_what_those_of_eight_do(tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, (100, 120)).astype(np.uint8)
    made = {
        "eight.png": Image.fromarray(grey),
        "sixteen.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "twelve.tif": Image.fromarray(grey.astype(np.uint16) * 16),
        "real.tif": Image.fromarray(grey.astype(np.float32) / 255),
    }
    images = []
    for name, picture in made.items():
        picture.save(tmp_path / name)
        case = CaseFiles(name, (tmp_path / name,), None, name)
        images.append(prepare_case(FAMILIES["retina"], case).whole)
    for image in images[1:]:
        torch.testing.assert_close(image, images[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["hippocampus", "brain"])
def test_training_on_shifted_files_takes_the_same_batches(tmp_path, name):
    family = FAMILIES[name]
    batches = []
    for shift in (0, 1000):
        folder = tmp_path / str(shift)
        write_phantom(family, folder, 2, seed=0, shape=(20, 30, 24))
        files = family.find(folder).cases
        for path in (path for case in files for path in case.images):
            image = nibabel.load(path)
            values = np.asarray(image.dataobj, np.float64) + shift
            nibabel.save(nibabel.Nifti1Image(values, image.affine), path)
        cases = SegmentedCases(
            family,
            [ShownCase(case, None) for case in files],
            LRUCache(2**30, getsizeof=lambda case: case.nbytes),
        )
        how = TrainingSettings(batch_size=2, augment="flips")
        batches += list(cases.epoch(how, False, torch.Generator().manual_seed(0)))
    (plain, mask), (shifted, same) = batches
    torch.testing.assert_close(shifted, plain, atol=1e-4, rtol=0)
    assert torch.equal(mask, same)
    # Beside a phantom smaller than a patch there is its background, not its mean.
    assert plain[0, 0, 0, 0, 0] < -0.3


@pytest.mark.skipif(not (REAL_DATA / "hippocampus").is_dir(), reason=f"no files in {REAL_DATA}")
@pytest.mark.parametrize("change", CHANGES)
def test_real_cases_give_the_same(change):
    for path in sorted((REAL_DATA / "hippocampus/images").glob("*.nii.gz"))[40:46]:
        values = np.asarray(nibabel.load(path).dataobj, np.float64)[np.newaxis]
        plain = whole(FAMILIES["hippocampus"], values)
        changed = whole(FAMILIES["hippocampus"], CHANGES[change](values))
        torch.testing.assert_close(changed, plain, atol=1e-4, rtol=0)
