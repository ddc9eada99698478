"""Files in, masks out: what a person gets back lies as what was given."""

import errno
import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image, ImageOps
from torch import nn

from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case, prepare_volumes
from federated.data.folders.table import folder_tables
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.learning.segmentation import segment
from federated.settings.networks import UNet
from federated.weights.model_file import ModelHeader, save_model
from tests.conftest import REAL_DATA
from tests.networks import build_model

CPU = torch.device("cpu")
TRAINED = REAL_DATA.parent / "faults/model/hippocampus.safetensors"
ORIENTATION = 0x0112


def model_of(folder, dataset, channels, classes, dims):
    network = build_model(
        "unet", channels=channels, classes=classes, dims=dims, norm="instance", seed=0, width=8
    )
    unet = UNet(norm="instance", width=8)
    header = ModelHeader(unet, channels, classes, dims, None, dataset, "phantom")
    save_model(folder / "model.safetensors", network, header)
    return folder / "model.safetensors"


@pytest.fixture
def model(tmp_path):
    return model_of(tmp_path, "hippocampus", 1, 3, 3)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(300, 40, (20, 24, 18)).astype(np.float32)


def predicted(model, image, name="x.nii.gz"):
    folder = model.parent
    nibabel.save(image, folder / name)
    (path,) = predict_files(model, [folder / name], folder / "out")
    assert path.name == name
    return nibabel.load(path)


def array(image):
    return np.asarray(image.dataobj)


def turned(axis, degrees):
    angle, result = np.deg2rad(degrees), np.eye(4)
    first, second = [other for other in range(3) if other != axis]
    result[first, first] = result[second, second] = np.cos(angle)
    result[first, second], result[second, first] = -np.sin(angle), np.sin(angle)
    return result


AFFINE = np.array([[1, 0, 0, -12], [0, 1, 0, 7], [0, 0, 1, 30], [0, 0, 0, 1]], float)


class TestHeader:
    @pytest.mark.parametrize(
        ("qform", "sform", "unit"),
        [(1, 1, "mm"), (2, 0, "mm"), (0, 4, "unknown"), (3, 2, "mm"), (1, 1, "micron")],
    )
    def test_codes_unit_and_geometry_are_those_of_the_image(
        self, model, values, qform, sform, unit
    ):
        affine = AFFINE.copy()
        affine[:3] *= 1000 if unit == "micron" else 1
        image = nibabel.Nifti1Image(values, affine)
        image.set_qform(affine, qform)
        image.set_sform(affine, sform)
        image.header.set_xyzt_units(unit, "sec")
        image.header.set_slope_inter(2.0, 5.0)
        mask = predicted(model, image)
        header, given = mask.header, nibabel.load(model.parent / "x.nii.gz").header
        assert (header["qform_code"], header["sform_code"]) == (qform, sform)
        assert header.get_xyzt_units() == (unit, "sec")
        np.testing.assert_array_equal(mask.affine, given.get_best_affine())
        for name in ("srow_x", "quatern_b", "qoffset_z", "pixdim"):
            np.testing.assert_array_equal(
                np.atleast_1d(header[name])[:4], np.atleast_1d(given[name])[:4]
            )
        assert header.get_data_dtype() == np.uint8
        assert header.get_slope_inter() in ((None, None), (1.0, 0.0))

    def test_big_endian_and_nifti_2_give_valid_files(self, model, values):
        plain = array(predicted(model, nibabel.Nifti1Image(values, AFFINE)))
        big = nibabel.Nifti1Header(endianness=">")
        for image in (
            nibabel.Nifti1Image(values.astype(">f4"), AFFINE, big),
            nibabel.Nifti2Image(values, AFFINE),
        ):
            mask = predicted(model, image)
            assert isinstance(mask, type(image))
            np.testing.assert_array_equal(array(mask), plain)
            np.testing.assert_array_equal(mask.affine, AFFINE)

    def test_the_same_mask_is_the_same_bytes(self, model, values):
        nibabel.save(nibabel.Nifti1Image(values, AFFINE), model.parent / "x.nii.gz")
        contents = {
            predict_files(model, [model.parent / "x.nii.gz"], model.parent / out)[0].read_bytes()
            for out in "ab"
        }
        assert len(contents) == 1
        predicted(model, nibabel.Nifti1Image(values, AFFINE), "x.nii")
        assert (model.parent / "out/x.nii").read_bytes() == gzip.decompress(contents.pop())


class TestTheSameMask:
    """However a volume is stored, scaled or turned, the same voxels get the same labels."""

    @pytest.fixture
    def plain(self, model, values):
        mask = array(predicted(model, nibabel.Nifti1Image(values, AFFINE)))
        assert len(np.unique(mask)) > 1
        return mask

    @pytest.mark.parametrize("codes", ["LPI", "PIR", "ASL", "SRA"])
    def test_in_any_order_of_axes(self, model, values, plain, codes):
        image = nibabel.Nifti1Image(values, AFFINE)
        there = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
        mask = predicted(model, image.as_reoriented(there))
        assert "".join(nibabel.aff2axcodes(mask.affine)) == codes
        back = mask.as_reoriented(ornt_transform(axcodes2ornt(codes), io_orientation(AFFINE)))
        np.testing.assert_array_equal(array(back), plain)

    @pytest.mark.parametrize(
        "turn",
        [turned(2, 1), turned(0, 10), turned(1, 44), turned(2, 20) @ turned(0, 15)],
        ids=["1", "10", "44", "two"],
    )
    def test_at_any_angle(self, model, values, plain, turn):
        mask = predicted(model, nibabel.Nifti1Image(values, turn @ AFFINE))
        np.testing.assert_array_equal(array(mask), plain)
        np.testing.assert_allclose(mask.affine, turn @ AFFINE, atol=1e-4)

    @pytest.mark.parametrize(("unit", "per_mm"), [("micron", 1000.0), ("meter", 0.001)])
    def test_in_any_unit(self, model, values, plain, unit, per_mm):
        affine = AFFINE.copy()
        affine[:3] *= per_mm
        image = nibabel.Nifti1Image(values, affine)
        image.header.set_xyzt_units(unit)
        mask = predicted(model, image)
        np.testing.assert_array_equal(array(mask), plain)
        np.testing.assert_allclose(mask.affine, affine, rtol=1e-6)


@pytest.mark.skipif(
    not TRAINED.is_file() or not (REAL_DATA / "hippocampus").is_dir(),
    reason=f"no trained model or files beside {REAL_DATA}",
)
@pytest.mark.parametrize("number", range(40, 46))
def test_a_real_case_gets_the_same_mask_however_it_is_stored(tmp_path, number):
    path = sorted((REAL_DATA / "hippocampus/images").glob("*.nii.gz"))[number]
    image = nibabel.load(path)
    values = np.asarray(image.dataobj, np.float32)

    def image_of(values, affine=None, header=None):
        return nibabel.Nifti1Image(values, image.affine if affine is None else affine, header)

    def mask(made):
        nibabel.save(made, tmp_path / "x.nii.gz")
        (written,) = predict_files(TRAINED, [tmp_path / "x.nii.gz"], tmp_path / "out")
        return nibabel.load(written)

    plain = array(mask(image_of(values)))
    truth = array(nibabel.load(path.parent.parent / "labels" / path.name))
    assert mean_dice(plain, truth) > 0.55
    stored = {
        "x10": image_of(values * 10),
        "+1000": image_of(values + 1000),
        "-1024": image_of(values - 1024),
        "z": image_of((values - values.mean()) / values.std()),
        "1": image_of(values, turned(2, 1) @ image.affine),
        "10": image_of(values, turned(0, 10) @ image.affine),
        "44": image_of(values, turned(1, 44) @ image.affine),
        "two": image_of(values, turned(2, 20) @ turned(0, 15) @ image.affine),
        "big": image_of(values.astype(">f4"), None, nibabel.Nifti1Header(endianness=">")),
    }
    for codes in ("LPI", "PIR", "ASL", "SRA"):
        there = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
        stored[codes] = image.as_reoriented(there)
    # Each way to store is seen with two of the cases.
    for name in list(stored)[number % 3 :: 3]:
        found = mask(stored[name])
        if name.isupper():
            back = ornt_transform(axcodes2ornt(name), io_orientation(image.affine))
            found = found.as_reoriented(back)
        assert mean_dice(array(found), plain) >= 0.999, name


def mean_dice(found, true):
    both = [2 * ((found == k) & (true == k)).sum() for k in (1, 2)]
    each = [(found == k).sum() + (true == k).sum() for k in (1, 2)]
    return float(np.mean([b / max(1, e) for b, e in zip(both, each, strict=True)]))


class Brighter(nn.Module):
    """Calls everything the first label that is brighter than the mean by some."""

    def forward(self, images):
        over = 50 * (images - 2.0)
        return torch.cat([-over, over, -over - 1], dim=1)


def test_a_file_larger_than_the_network_sees_is_predicted_all_over():
    family = FAMILIES["hippocampus"]
    values = np.random.default_rng(0).normal(0, 0.1, (95, 91, 65))
    truth = np.zeros(values.shape, np.uint8)
    for corner in ((0, 0, 0), (85, 80, 55), (2, 78, 30), (45, 40, 30)):
        truth[tuple(slice(at, at + 10) for at in corner)] = 1
    values[truth == 1] += 5
    case = prepare_volumes(family, "x", [Volume(values[np.newaxis], np.eye(4))], truth)
    found = case.to_own_grid(segment(Brighter(), case.whole, family, CPU).softmax(dim=0))
    np.testing.assert_array_equal(found, truth)


def test_a_case_of_the_networks_own_size_passes_at_once():
    seen = []

    class Watched(Brighter):
        def forward(self, images):
            seen.append(tuple(images.shape[2:]))
            return super().forward(images)

    family = FAMILIES["hippocampus"]
    for shape, windows in (((30, 40, 30), 1), ((43, 50, 40), 2)):
        values = np.random.default_rng(0).random((1, *shape))
        case = prepare_volumes(family, "x", [Volume(values, np.eye(4))])
        seen.clear()
        segment(Watched(), case.whole, family, CPU)
        assert set(seen) == {family.shape}
        assert len(seen) <= windows


class TestPhotographs:
    @pytest.fixture
    def skin(self, tmp_path):
        return model_of(tmp_path, "skin", 3, 2, 2)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_turned_photograph_gets_the_mask_of_the_upright_one_in_its_own_frame(
        self, skin, tmp_path, orientation
    ):
        from federated.data.folders.picture_file import as_stored

        smooth = np.add.outer(np.arange(90) * 2, np.arange(120))[..., np.newaxis] % 251
        photograph = np.concatenate([smooth, smooth // 2, 250 - smooth], -1).astype(np.uint8)
        Image.fromarray(photograph).save(tmp_path / "upright.png")
        tag = Image.Exif()
        tag[ORIENTATION] = orientation
        stored = np.moveaxis(as_stored(np.moveaxis(photograph, -1, 0), orientation), 0, -1)
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=tag)
        files = [tmp_path / "upright.png", tmp_path / "turned.png"]
        upright, turned_mask = predict_files(skin, files, tmp_path / "out")
        expected = np.asarray(Image.open(upright))
        assert expected.shape == (90, 120)
        assert set(np.unique(expected)) == {0, 255}
        with Image.open(turned_mask) as mask:
            assert mask.getexif().get(ORIENTATION, 1) == orientation
            shown = np.asarray(ImageOps.exif_transpose(mask))
        np.testing.assert_array_equal(shown, expected)
        if orientation > 1:
            import tifffile

            # What lies in the file, which tifffile does not turn.
            raw = tifffile.imread(turned_mask)
            assert raw.shape == stored.shape[:2]
            np.testing.assert_array_equal(raw, as_stored(expected, orientation))


class TestRefusedInTheSameWords:
    """What training refuses no other entrance lets in."""

    @pytest.fixture
    def files(self, tmp_path):
        write_phantom(FAMILIES["hippocampus"], tmp_path / "h", 3, seed=0, shape=(12, 14, 12))
        return FAMILIES["hippocampus"].find(tmp_path / "h")

    @pytest.mark.parametrize("wrong", [np.nan, np.inf])
    def test_a_voxel_that_is_no_number(self, model, files, wrong):
        case = files.cases[1]
        (path,) = case.images
        values = np.asarray(nibabel.load(path).dataobj).copy()
        values[1, 2, 3] = wrong
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
        said = []
        for entrance in (
            lambda: prepare_case(FAMILIES["hippocampus"], case),
            lambda: predict_files(model, [path], model.parent / "out"),
        ):
            with pytest.raises(ConsiliumError) as error:
                entrance()
            said.append(str(error.value))
        table = folder_tables(FAMILIES["hippocampus"], {"a": files})["a"]
        said.append(table["unreadable"][1])
        assert len(set(said)) == 1
        assert str(path) in said[0]
        assert "1 of 2016 voxels" in said[0]
        assert "(1, 2, 3)" in said[0]
        assert not list((model.parent / "out").glob("*"))

    def test_one_value_everywhere(self, model, files):
        (path,) = files.cases[0].images
        flat = np.full((12, 14, 12), 7, np.float32)
        nibabel.save(nibabel.Nifti1Image(flat, np.eye(4)), path)
        for entrance in (
            lambda: prepare_case(FAMILIES["hippocampus"], files.cases[0]),
            lambda: predict_files(model, [path], model.parent / "out"),
        ):
            with pytest.raises(ConsiliumError, match="one value everywhere"):
                entrance()

    def test_modalities_that_lie_elsewhere(self, tmp_path):
        brain = model_of(tmp_path, "brain", 4, 5, 3)
        write_phantom(FAMILIES["brain"], tmp_path / "b", 1, seed=0, shape=(12, 14, 12))
        (case,) = FAMILIES["brain"].find(tmp_path / "b").cases
        path = case.images[2]
        values = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(values[::-1], np.diag([-1.0, 1, 1, 1])), path)
        for entrance in (
            lambda: prepare_case(FAMILIES["brain"], case),
            lambda: predict_files(brain, [path.parent], tmp_path / "out"),
        ):
            with pytest.raises(ConsiliumError, match="lie at different places"):
                entrance()

    def test_two_files_of_one_modality(self, tmp_path):
        brain = model_of(tmp_path, "brain", 4, 5, 3)
        write_phantom(FAMILIES["brain"], tmp_path / "b", 1, seed=0, shape=(12, 14, 12))
        (case,) = FAMILIES["brain"].find(tmp_path / "b").cases
        path = case.images[0]
        hidden = path.parent / f"._{path.name}"
        hidden.write_bytes(b"no data")
        predict_files(brain, [path.parent], tmp_path / "out")
        nibabel.save(nibabel.load(path), path.parent / path.name.removesuffix(".gz"))
        with pytest.raises(ConsiliumError, match="more than one file of a modality"):
            predict_files(brain, [path.parent], tmp_path / "out")


def test_a_bad_file_keeps_no_other_from_its_mask_and_all_are_named(model, tmp_path, values):
    files = [tmp_path / f"{name}.nii.gz" for name in ("a", "b", "c", "d")]
    for file in files:
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    for bad in (files[0], files[2]):
        bad.write_bytes(bad.read_bytes()[:-50])
    out = tmp_path / "out"
    with pytest.raises(ConsiliumError, match="2 of 4 files have no mask") as error:
        predict_files(model, files, out)
    assert all(str(bad) in str(error.value) for bad in (files[0], files[2]))
    assert sorted(path.name for path in out.iterdir()) == ["b.nii.gz", "d.nii.gz"]


def test_a_folder_in_a_masks_place_and_a_link_to_itself_are_named(model, tmp_path, values):
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    (tmp_path / "out" / "a.nii.gz").mkdir(parents=True)
    with pytest.raises(ConsiliumError, match="which is a folder"):
        predict_files(model, [file], tmp_path / "out")
    loop = tmp_path / "loop.nii.gz"
    loop.symlink_to(loop)
    with pytest.raises(ConsiliumError, match=r"loop\.nii\.gz cannot be read"):
        predict_files(model, [loop], tmp_path / "out")


@pytest.mark.parametrize("uncertainty", [False, True])
def test_a_full_disk_is_told_with_the_folder_that_has_no_room(
    model, tmp_path, values, monkeypatch, uncertainty
):
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), file)
    write = Path.write_bytes

    def full(path, content):
        if uncertainty and "uncertainty" not in path.name:
            return write(path, content)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConsiliumError, match=r"out \(--out\): No space left on device"):
        predict_files(model, [file], tmp_path / "out", uncertainty=uncertainty)
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left == (["a.nii.gz"] if uncertainty else [])
