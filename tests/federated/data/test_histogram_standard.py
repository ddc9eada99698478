"""Intensities on a standard scale: as TorchIO maps them, whatever an image's own scale was."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchio as tio

from federated.data.folders.families import FAMILIES
from federated.data.folders.harmonised_family import harmonise_fault, harmonised
from federated.data.folders.histogram_standard import (
    CENTRE,
    WIDTH,
    foreground,
    landmarks_of,
    on_standard_range,
    standardised,
)
from federated.data.folders.prepared_case import prepare_volumes
from federated.data.folders.volume import Volume
from federated.data.scanner import scanner_profile
from federated.errors import ConsiliumError
from federated.settings.harmonisation import PERCENTILES

BRAIN, HIPPOCAMPUS = FAMILIES["brain"], FAMILIES["hippocampus"]
STANDARD = (0.0, 8.0, 15.0, 24.0, 31.0, 42.0, 55.0, 63.0, 71.0, 86.0, 100.0)


def body(seed=0, shape=(20, 22, 24)):
    """Two tissues in a body with air around, float64."""
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 3.0, shape)
    values[4:-4, 4:-4, 4:-4] += 200 + 30 * rng.standard_normal([n - 8 for n in shape])
    values[8:12, 8:12, 8:12] += 120
    return values


def not_air(image):
    """The foreground as TorchIO takes a masking method."""
    return torch.from_numpy(foreground(image.numpy().astype(np.float64)))


def with_quartiles(standard):
    """Eleven landmarks as TorchIO has them: with quartiles, which it does not use."""
    found = list(standard)
    return np.array([*found[:3], np.mean(found[2:4]), *found[3:8], np.mean(found[7:9]), *found[8:]])


@pytest.mark.numerical
@pytest.mark.parametrize("seed", range(4))
def test_the_mapping_is_that_of_torchio(seed):
    values = body(seed)
    subject = tio.Subject(mri=tio.ScalarImage(tensor=torch.from_numpy(values[None]).float()))
    theirs = tio.HistogramStandardization(
        {"mri": with_quartiles(STANDARD)}, masking_method=not_air
    )(subject)["mri"].data[0]
    ours = standardised(values, STANDARD, "x") * WIDTH + CENTRE
    inside = (theirs > -100) & (theirs < 200)
    assert inside.float().mean() > 0.9
    np.testing.assert_allclose(ours[inside], theirs[inside], atol=5e-3)
    np.testing.assert_allclose(ours, theirs.clip(-100, 200), atol=5e-3)


def test_the_landmarks_of_several_images_are_those_of_torchio(tmp_path):
    paths, found = [], []
    for seed in range(3):
        image = tio.ScalarImage(tensor=torch.from_numpy(body(seed)[None]).float())
        image.save(tmp_path / f"{seed}.nii")
        paths.append(tmp_path / f"{seed}.nii")
        found.append(on_standard_range(landmarks_of(image.data.numpy(), "x")))
    theirs = tio.HistogramStandardization.train(paths, masking_function=not_air, progress=False)
    np.testing.assert_allclose(np.mean(found, axis=0), np.delete(theirs, [3, 9]), atol=1e-3)


@pytest.mark.parametrize("change", [lambda x: 7 * x, lambda x: x + 1e5, lambda x: 1e-6 * x])
@pytest.mark.parametrize("way", ["percentiles", "nyul"])
def test_a_scale_and_an_offset_change_nothing(way, change):
    landmarks = {"MRI": STANDARD} if way == "nyul" else None
    family = harmonised(HIPPOCAMPUS, way, landmarks)

    def whole(values):
        return prepare_volumes(family, "x", [Volume(values[None], np.eye(4))]).whole

    torch.testing.assert_close(whole(change(body())), whole(body()), atol=2e-4, rtol=1e-4)


def test_tissues_of_two_scanners_come_to_the_same_brightness_by_nyul_alone():
    """A gamma curve, which no mean and variance take back."""
    first = np.where(body() > 100, body(), 1.0)
    second = 4000 * (first / first.max()) ** 1.6
    plain, nyul = HIPPOCAMPUS, harmonised(HIPPOCAMPUS, "nyul", {"MRI": STANDARD})
    gaps = []
    for family in (plain, nyul):
        one, other = (
            prepare_volumes(family, "x", [Volume(v[None], np.eye(4))]).image
            for v in (first, second)
        )
        inner = (slice(None), *(slice(n // 2 - 5, n // 2 + 5) for n in one.shape[1:]))
        gaps.append(float((one[inner] - other[inner]).abs().mean() / one[inner].std()))
    assert gaps[0] > 0.3
    assert gaps[1] < 0.05


def test_more_background_around_a_body_changes_its_brightness_by_z_scores_alone():
    values = np.where(body() > 100, body(), 0.0)
    wide = np.pad(values, 8)
    sizes = []
    for family in (HIPPOCAMPUS, harmonised(HIPPOCAMPUS, "percentiles", None)):
        cases = (prepare_volumes(family, "x", [Volume(v[None], np.eye(4))]) for v in (values, wide))
        wholes = (case.whole for case in cases)
        small, large = (float(whole[whole > whole.mean()].mean()) for whole in wholes)
        sizes.append(abs(small - large))
    assert sizes[0] > 0.5
    assert sizes[1] < 1e-2


def test_an_image_is_measured_as_its_scanner_shows_it_on_the_networks_voxels():
    """Its own landmarks then map it to the standard's, whatever they were in the files."""
    family = replace(HIPPOCAMPUS, spacing=(1.5, 1.5, 1.5))
    profile = scanner_profile(0, "site-01", 3)
    volumes = [Volume(body()[None], np.eye(4))]
    by_standard = harmonised(family, "nyul", {"MRI": STANDARD})
    case = prepare_volumes(by_standard, "x", volumes, None, profile, 3)
    before, sides = case.geometry.before, case.geometry.resampled
    inner = case.whole[(0, *(slice(a, a + n) for a, n in zip(before, sides, strict=True)))]
    plain = prepare_volumes(family, "x", volumes, None, profile, 3).whole
    measured = plain[(0, *(slice(a, a + n) for a, n in zip(before, sides, strict=True)))].numpy()
    inside = inner.numpy()[foreground(measured)] * WIDTH + CENTRE
    np.testing.assert_allclose(np.percentile(inside, PERCENTILES), STANDARD, atol=0.5)


def test_what_is_darker_than_the_mean_is_foreground_too():
    """A tumour between fat and air in T1: by what is above the mean it would be extrapolated."""
    values = np.repeat([0.0, 0.3, 1.0], [300, 300, 400]) + 0.001 * np.arange(1000) / 1000
    assert foreground(values).tolist() == (values > 0.1).tolist()
    assert (foreground(values) == foreground(7 * values - 400)).all()


def test_each_modality_has_a_scale_of_its_own():
    standards = dict.fromkeys(BRAIN.modalities, STANDARD)
    bent = tuple(np.linspace(0, 100, 11))
    first = BRAIN.modalities[0]
    volumes = [Volume(body(seed)[None], np.eye(4)) for seed in range(len(BRAIN.modalities))]
    one = prepare_volumes(harmonised(BRAIN, "nyul", standards), "x", volumes).image
    two = prepare_volumes(harmonised(BRAIN, "nyul", standards | {first: bent}), "x", volumes).image
    assert not torch.equal(one[0], two[0])
    assert torch.equal(one[1:], two[1:])


def test_landmarks_of_one_value_give_it_the_brightest_of_them_and_bend_nothing_to_infinity():
    values = np.repeat([0.0, 10.0, 10.0, 10.0, 30.0], 100)
    values = np.concatenate([values, np.linspace(10, 30, 100)])
    found = standardised(values, STANDARD, "x")
    assert np.isfinite(found).all()
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.full((4, 4), 3.0), "fewer than two different values"),
        (np.array([0.0, 0, 0, 5]), "fewer than two different values"),
        (np.repeat([0.0, 1.0], [90, 10]), "fewer than two different values"),
        (np.array([1.0, np.nan, 3.0]), "no numbers"),
        (np.array([1.0, np.inf, 3.0]), "no numbers"),
        (np.zeros(0), "no numbers"),
    ],
)
def test_an_image_without_a_scale_is_refused(values, said):
    for call in (lambda: landmarks_of(values, "c7"), lambda: standardised(values, STANDARD, "c7")):
        with pytest.raises(ConsiliumError, match=said) as error:
            call()
        assert "c7" in str(error.value)


def test_a_constant_image_and_a_mask_are_refused_in_preparation_by_name():
    family = harmonised(HIPPOCAMPUS, "percentiles", None)
    mask = np.zeros((20, 20, 20))
    mask[5:9, 5:9, 5:9] = 1
    for values, said in ((np.full((20, 20, 20), 2.0), "one value"), (mask, "foreground")):
        with pytest.raises(ConsiliumError, match=said) as error:
            prepare_volumes(family, "case-3", [Volume(values[None], np.eye(4))])
        assert "case-3" in str(error.value)


def test_ct_measured_modalities_pictures_and_classified_images_are_refused_with_the_reason():
    pet = replace(HIPPOCAMPUS, modalities=("FDG-PET",))
    adc = replace(HIPPOCAMPUS, modalities=("ADC",))
    t1_map = replace(HIPPOCAMPUS, modalities=("T1 map",))
    refused = {
        "Hounsfield": FAMILIES["kidney"],
        "FDG-PET": pet,
        "ADC": adc,
        "T1 map": t1_map,
        "pictures": FAMILIES["retina"],
        "classified": None,
    }
    for said, family in refused.items():
        for way in ("percentiles", "nyul"):
            assert said in harmonise_fault(family, way, None)
    for name in ("MRI", "T1", "FLAIR", "active"):
        assert not harmonise_fault(replace(HIPPOCAMPUS, modalities=(name,)), "percentiles", None)
    assert not harmonise_fault(FAMILIES["kidney"], "none", None)


def test_a_scale_that_is_missing_unused_or_of_other_modalities_is_refused():
    assert "consilium statistics" in harmonise_fault(HIPPOCAMPUS, "nyul", None)
    assert "uses none" in harmonise_fault(HIPPOCAMPUS, "percentiles", {"MRI": STANDARD})
    assert "State the landmarks of each" in harmonise_fault(BRAIN, "nyul", {"T1": STANDARD})
    with pytest.raises(ValueError, match="uses none"):
        harmonised(HIPPOCAMPUS, "none", {"MRI": STANDARD})
