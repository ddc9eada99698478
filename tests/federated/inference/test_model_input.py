"""Arrays for a trained model: scaled without rounding or refused, the same at each entrance."""

import csv

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image

from federated.data.folders.prepared_case import prepare_volumes
from federated.data.folders.volume import Volume
from federated.errors import ConsiliumError
from federated.inference.model_input import case_of_array, class_images, full_range, segmented
from federated.inference.prediction import predict_files, results_there
from federated.settings.networks import SmallCNN, UNet
from federated.weights.model_file import ModelHeader, load_model, read_header, save_model
from tests.networks import build_model

VOLUMES = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 28)).astype(np.uint8)


@pytest.fixture
def classifier(tmp_path):
    network = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    header = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
    save_model(tmp_path / "c.safetensors", network, header)
    return tmp_path / "c.safetensors"


@pytest.fixture
def unet(tmp_path):
    network = build_model("unet", channels=1, classes=3, dims=3, norm="instance", seed=0, width=8)
    header = ModelHeader(UNet(norm="instance", width=8), 1, 3, 3, None, "hippocampus", "phantom")
    save_model(tmp_path / "u.safetensors", network, header)
    return tmp_path / "u.safetensors"


def served(path):
    """The registered model, without a registry."""
    from tasks.served_model import ServedModel

    model = ServedModel()
    context = mlflow.pyfunc.PythonModelContext({"weights": str(path)}, {})
    model.load_context(context)
    return lambda images: model.predict(context, images)


def from_npz(model, arrays):
    folder = model.parent
    np.savez(folder / "x.npz", test_images=arrays)
    path, _ = predict_files(model, [folder / "x.npz"], folder)
    rows = list(csv.reader(path.open()))[1:]
    return np.array([[float(value) for value in row[3:]] for row in rows])


def both(model, arrays):
    """Probabilities by file and by request, which have to be the same."""
    by_file = from_npz(model, arrays)
    np.testing.assert_allclose(served(model)(arrays[:, np.newaxis]), by_file, rtol=1e-6)
    return by_file


class TestRange:
    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
    def test_real_numbers_up_to_1_are_scaled_and_not_rounded(self, classifier, kind):
        expected = both(classifier, VOLUMES)
        unit = (VOLUMES / 255).astype(kind)
        np.testing.assert_allclose(both(classifier, unit), expected, atol=2e-3)
        np.testing.assert_allclose(both(classifier, VOLUMES.astype(kind)), expected, rtol=1e-5)
        dim = class_images(unit[:, np.newaxis] * kind(0.4), read_header(classifier), "x")
        np.testing.assert_allclose(dim[:, 0], VOLUMES * 0.4, atol=0.2)

    def test_truth_values_are_black_and_white(self, classifier):
        mask = VOLUMES > 99
        expected = both(classifier, mask.astype(np.uint8) * np.uint8(255))
        np.testing.assert_array_equal(both(classifier, mask), expected)
        np.testing.assert_array_equal(both(classifier, mask.astype(float)), expected)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda x: np.where(x == x.max(), np.nan, x / 255), "voxels that are NaN"),
            (lambda x: np.where(x == x.max(), np.inf, x / 255), "voxels that are NaN"),
            (lambda x: x / 255 * 1.02, r"0\.\.1\.02.*could be either"),
            (lambda x: (x > 99).astype(np.uint8), "integers of 0 and 1"),
            (lambda x: (x > 99).astype(np.int64), "integers of 0 and 1"),
            (lambda x: x.astype(np.int32) - 9, r"-9\.\.246.*0\.\.255"),
            (lambda x: x.astype(np.uint16) * 9, r"0\.\.2295.*0\.\.255"),
            (lambda x: x * 0, "one value everywhere"),
            (lambda x: np.where(np.arange(3)[:, None, None, None] == 1, 7, x), "number 1"),
            (lambda x: x.astype(complex), "type complex128"),
            (lambda x: x[..., :27], "1x28x28x27; the model takes 1x28x28x28"),
        ],
    )
    def test_another_range_is_refused_at_both_entrances(self, classifier, change, said):
        arrays = change(VOLUMES)
        with pytest.raises(ConsiliumError, match=said):
            from_npz(classifier, arrays)
        with pytest.raises(ConsiliumError, match=said):
            served(classifier)(arrays[:, np.newaxis])

    def test_pictures_of_more_bits_are_scaled_by_those_they_use(self):
        grey = np.arange(256, dtype=np.uint16).reshape(1, 16, 16)
        assert full_range(grey.astype(np.uint8), "x").dtype == np.uint8
        for white in (1023, 4095, 16383, 65535):
            wide = np.round(grey * (white / 255)).astype(np.uint16)
            scaled = full_range(wide, "x")
            np.testing.assert_allclose(scaled, grey, atol=0.15)
            assert scaled.max() == pytest.approx(255)
        with pytest.raises(ConsiliumError, match="negative values, down to -1"):
            full_range(grey.astype(np.int32) - 1, "x")

    def test_a_coloured_picture_is_no_grey_one(self, tmp_path):
        network = build_model("small_cnn", channels=1, classes=8, dims=2, norm="group", seed=0)
        header = ModelHeader(SmallCNN(), 1, 8, 2, 28, "bloodmnist", "files")
        save_model(tmp_path / "p.safetensors", network, header)
        colours = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype(np.uint8)
        Image.fromarray(colours).save(tmp_path / "c.png")
        Image.fromarray(colours[..., 0]).save(tmp_path / "g.png")
        Image.fromarray(colours[..., 0].astype(np.uint16) * 257).save(tmp_path / "w.png")
        with pytest.raises(ConsiliumError, match="is coloured"):
            predict_files(tmp_path / "p.safetensors", [tmp_path / "c.png"], tmp_path)
        files = [tmp_path / "g.png", tmp_path / "w.png"]
        path, _ = predict_files(tmp_path / "p.safetensors", files, tmp_path)
        eight, sixteen = [row[3:] for row in list(csv.reader(path.open()))[1:]]
        np.testing.assert_allclose(np.array(eight, float), np.array(sixteen, float), atol=1e-6)


class TestCases:
    VALUES = np.random.default_rng(0).normal(300, 40, (20, 30, 22))

    def test_a_request_and_a_file_get_the_same_probabilities(self, unet):
        images = np.stack([self.VALUES, self.VALUES * 2 + 9])[:, np.newaxis].astype(np.float32)
        found = served(unet)(images)
        assert found.shape == (2, 3, 20, 30, 22)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found[0], found[1], atol=1e-4)
        model = load_model(unet)
        family = read_header(unet).family()
        case = prepare_volumes(family, "x", [Volume(images[0], np.eye(4))])
        mask = case.to_own_grid(segmented(model, family, case))
        np.testing.assert_array_equal(found[0].argmax(axis=0), mask)
        np.savez(unet.parent / "x.npz", image=images[0])
        asked = [unet.parent / "x.npz"], unet.parent / "out"
        assert results_there(read_header(unet), *asked) == []
        (path,) = predict_files(unet, *asked)
        assert results_there(read_header(unet), *asked) == [path]
        np.testing.assert_array_equal(np.load(path)["mask"], mask)

    def test_a_request_may_be_larger_than_the_networks_field_and_of_no_multiple(self, unet):
        large = np.random.default_rng(1).normal(0, 1, (1, 1, 61, 57, 33)).astype(np.float32)
        assert served(unet)(large).shape == (1, 3, 61, 57, 33)

    def test_no_image_gives_none(self, unet):
        assert served(unet)(np.zeros((0, 1, 8, 8, 8), np.float32)).shape == (0, 3, 8, 8, 8)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda x: np.where(x == x.max(), np.nan, x), "1 of 13200 voxels that are NaN"),
            (lambda x: x * 0 + 5, "one value everywhere"),
            (lambda x: x[0], "is no volume"),
            (lambda x: np.stack([x, x]), "has 2 channels; hippocampus has 1"),
            (lambda x: x.astype(complex), "type complex128"),
            (lambda x: x[:0], "is empty"),
        ],
    )
    def test_what_a_file_may_not_hold_a_request_may_not_either(self, unet, change, said):
        image = change(self.VALUES)
        np.savez(unet.parent / "x.npz", image=image)
        with pytest.raises(ConsiliumError, match=said):
            predict_files(unet, [unet.parent / "x.npz"], unet.parent / "out")
        with pytest.raises(ConsiliumError, match=said):
            served(unet)(image[np.newaxis])

    def test_a_request_of_one_modality_may_lack_its_channels(self, unet):
        found = served(unet)(self.VALUES[np.newaxis])
        np.testing.assert_array_equal(found, served(unet)(self.VALUES[np.newaxis, np.newaxis]))

    @pytest.mark.parametrize("given", [np.float64(1), np.array([None, {}]), np.array(["a"])])
    def test_a_request_of_no_array_of_numbers_is_refused(self, unet, given):
        with pytest.raises(ConsiliumError, match="real numbers"):
            served(unet)(given)

    def test_an_affine_beside_an_array_is_honoured(self, unet):
        model, family = load_model(unet), read_header(unet).family()
        affine = np.diag([-2.0, 1, 1, 1])
        np.savez(unet.parent / "x.npz", image=self.VALUES, affine=affine)
        (path,) = predict_files(unet, [unet.parent / "x.npz"], unet.parent / "out")
        case = prepare_volumes(family, "x", [Volume(self.VALUES[np.newaxis], affine)])
        expected = case.to_own_grid(segmented(model, family, case))
        np.testing.assert_array_equal(np.load(path)["mask"], expected)
        np.savez(unet.parent / "x.npz", image=self.VALUES, affine=np.diag([0.0, 0.0, 0.0, 1.0]))
        with pytest.raises(ConsiliumError, match="0 x 0 x 0 mm"):
            predict_files(unet, [unet.parent / "x.npz"], unet.parent / "out")

    @pytest.mark.parametrize("affine", [np.array("abc"), np.eye(4) * 1j, np.eye(4) > 0])
    def test_an_affine_that_is_no_numbers_is_refused(self, unet, affine):
        np.savez(unet.parent / "x.npz", image=self.VALUES, affine=affine)
        with pytest.raises(ConsiliumError, match="4x4 real numbers are expected"):
            predict_files(unet, [unet.parent / "x.npz"], unet.parent / "out")

    def test_an_array_without_an_affine_is_on_the_familys_voxels(self, unet):
        family = read_header(unet).family().with_spacing(2.0)
        case = case_of_array(family, self.VALUES, "x")
        assert case.geometry.resampled == (20, 30, 22)
        assert torch.is_tensor(case.whole)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04" + bytes(40)])
def test_a_file_of_no_arrays_is_refused(classifier, content):
    path = classifier.parent / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ConsiliumError, match=r"x\.npz cannot be read"):
        predict_files(classifier, [path], classifier.parent)


def test_pickled_and_missing_arrays_are_refused(classifier):
    path = classifier.parent / "x.npz"
    np.savez(path, test_images=np.array([{"a": 1}], object))
    with pytest.raises(ConsiliumError, match="cannot be read"):
        predict_files(classifier, [path], classifier.parent)
    np.savez(path, other=VOLUMES)
    with pytest.raises(ConsiliumError, match="it has other"):
        predict_files(classifier, [path], classifier.parent)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConsiliumError, match="cannot be read"):
        predict_files(classifier, [path], classifier.parent)


def test_a_single_number_is_no_image(classifier):
    np.savez(classifier.parent / "x.npz", images=np.float64(1))
    with pytest.raises(ConsiliumError, match="the model takes"):
        predict_files(classifier, [classifier.parent / "x.npz"], classifier.parent)


def test_a_segmentation_model_of_no_numbers_gives_no_mask(unet):
    """Of NaN everywhere the likeliest class is the first, which is the background."""
    network = load_model(unet)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    save_model(unet, network, read_header(unet))
    values = np.random.default_rng(0).normal(300, 40, (20, 24, 18)).astype(np.float32)
    np.savez(unet.parent / "x.npz", image=values)
    for uncertainty in (False, True):
        with pytest.raises(ConsiliumError, match="predicts no numbers"):
            predict_files(
                unet, [unet.parent / "x.npz"], unet.parent / "out", uncertainty=uncertainty
            )
    assert not (unet.parent / "out").exists()
    with pytest.raises(ConsiliumError, match="predicts no numbers"):
        served(unet)(values[np.newaxis])
