"""What is kept with a model of its calibration is what its user gets; and maps of uncertainty."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from federated.calibration.of_model import ModelCalibration
from federated.calibration.temperature import tempered
from federated.data.folders.dicom.algorithm import Algorithm
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.learning.flip_variance import flip_variance, flips
from federated.settings.networks import SmallCNN
from federated.weights.model_file import ModelHeader, load_model, read_header, save_model
from tests.federated.inference.test_predict_files import model_of
from tests.networks import build_model

NAMES = ("normal", "hyperplasia")
CALIBRATION = ModelCalibration(2.0, 0.1, 0.45, {"site-00": 0.0, "site-01": 0.55})


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    network = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    header = ModelHeader(SmallCNN(norm="group"), 1, 2, 3, 28, "adrenalmnist3d", "phantom")
    save_model(tmp_path / "plain.safetensors", network, header)
    kept = replace(header, calibration=CALIBRATION)
    save_model(tmp_path / "model.safetensors", network, kept)
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", test_images=images)
    return tmp_path / "model.safetensors"


def rows(model: Path, site: str | None = None) -> list[dict[str, str]]:
    path, _ = predict_files(model, [model.parent / "x.npz"], model.parent / "out", site)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def probabilities(found: list[dict[str, str]]) -> np.ndarray:
    return np.array([[float(row[name]) for name in NAMES] for row in found])


def test_probabilities_are_those_at_the_temperature_and_sets_those_of_the_threshold(classifier):
    plain = rows(classifier.parent / "plain.safetensors")
    assert list(plain[0]) == ["file", "array", "index", *NAMES]
    raw, found = probabilities(plain), rows(classifier)
    np.testing.assert_allclose(probabilities(found), tempered(raw, 2.0), rtol=1e-12)
    assert list(found[0])[-1] == "set"
    for row, own in zip(found, raw, strict=True):
        assert row["set"] == "|".join(n for n, p in zip(NAMES, own, strict=True) if p >= 0.45)


def test_a_site_has_the_sets_of_its_own_threshold(classifier):
    assert {row["set"] for row in rows(classifier, "site-00")} == {"normal|hyperplasia"}
    raw = probabilities(rows(classifier.parent / "plain.safetensors"))
    for row, own in zip(rows(classifier, "site-01"), raw, strict=True):
        assert row["set"] == "|".join(n for n, p in zip(NAMES, own, strict=True) if p >= 0.55)
    with pytest.raises(ConsiliumError, match="none of 'site-09'"):
        rows(classifier, "site-09")


def how(model: Path) -> dict:
    """What is told beside the newest table of how it was made."""
    told = json.loads((model.parent / "out" / "probabilities.json").read_text())
    table = (model.parent / "out" / told["table"]).read_bytes()
    assert told["sha256"] == hashlib.sha256(table).hexdigest()
    return told


def test_beside_a_table_stands_what_it_was_made_with(classifier):
    digest = hashlib.sha256(classifier.read_bytes()).hexdigest()
    pooled = {"alpha": 0.1, "threshold": 0.45, "threshold_of": "all sites together"}
    rows(classifier)
    assert how(classifier) == {
        "table": "probabilities.csv",
        "sha256": how(classifier)["sha256"],
        "model": "model",
        "version": digest[:12],
        "dataset": "adrenalmnist3d",
        "data_source": "phantom",
        "columns": list(NAMES),
        "site": None,
        "temperature": 2.0,
        "sets": pooled,
    }
    rows(classifier, "site-01")
    assert how(classifier)["sets"] == pooled | {"threshold": 0.55, "threshold_of": "site-01"}
    rows(classifier.parent / "plain.safetensors", "site-01")
    told = how(classifier)
    assert (told["model"], told["temperature"], told["sets"]) == ("plain", 1.0, None)
    assert told["site"] is None  # the model is one for all sites


def test_a_sites_own_model_and_the_name_in_the_registry_stand_beside_the_table(classifier):
    network = load_model(classifier)
    own = {"site-00": {"head.bias": np.zeros(2, np.float32)}}
    path = classifier.parent / "own.safetensors"
    save_model(path, network, read_header(classifier), own)
    files, by = [classifier.parent / "x.npz"], Algorithm("adrenal", "3")
    predict_files(path, files, classifier.parent / "out", "site-00", by)
    told = how(classifier)
    assert (told["model"], told["version"], told["site"]) == ("adrenal", "3", "site-00")


def test_a_site_without_a_threshold_is_refused_before_any_file_is_read(classifier):
    with pytest.raises(ConsiliumError, match="none of 'site-09'"):
        predict_files(classifier, [Path("not-there.npz")], classifier.parent / "out", "site-09")
    assert not (classifier.parent / "out").exists()


def test_a_header_keeps_the_calibration_exactly_and_a_file_without_one_is_what_it_was(classifier):
    assert read_header(classifier).calibration == CALIBRATION
    plain = read_header(classifier.parent / "plain.safetensors")
    assert plain.calibration is None
    assert "calibration" not in plain.to_text()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": 1e9}, "temperature"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": None}, "goes with their alpha"),
        ({"alpha": None, "threshold": None}, "all together have none"),
        ({"sites": {"site-00": "x"}}, "site-00"),
        ({"more": 1}, "more"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused(classifier, changed, said):
    value = json.loads(read_header(classifier).to_text())
    value["calibration"] |= changed
    with pytest.raises(ValueError, match=said):
        ModelHeader.from_text(json.dumps(value))


def test_a_segmentation_has_no_calibration_of_classes(tmp_path):
    header = read_header(model_of(tmp_path, "hippocampus", 1, 3, 3))
    text = replace(header, calibration=ModelCalibration(2.0)).to_text()
    with pytest.raises(ValueError, match="a calibration of classes, which segmentation has not"):
        ModelHeader.from_text(text)


@pytest.mark.parametrize("dims", [2, 3])
def test_each_combination_of_axes_is_flipped_once(dims):
    found = list(flips(dims))
    assert len(found) == len(set(found)) == 2**dims
    assert found[0] == ()
    assert {axis for axes in found for axis in axes} == set(range(1, dims + 1))


def test_the_variance_is_that_over_all_flips():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(size=(1, 5, 6, 4)))
    weights = torch.from_numpy(rng.normal(size=(3, 5, 6, 4)))

    def predict(x: torch.Tensor) -> torch.Tensor:
        return (x * weights).softmax(dim=0)

    expected = torch.stack([predict(image.flip(a)).flip(a) for a in flips(3)]).var(
        dim=0, correction=0
    )
    found = flip_variance(predict, image)
    np.testing.assert_allclose(found, expected.amax(dim=0), atol=1e-12)
    assert found.shape == (5, 6, 4)
    assert 0 < float(found.max()) <= 0.25


def test_a_network_that_flips_with_its_image_is_certain():
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 8, 8)))
    found = flip_variance(lambda x: torch.cat([x, -x]).softmax(dim=0), image)
    assert float(found.max()) < 1e-15


def test_a_map_lies_beside_the_mask_on_its_images_grid(tmp_path):
    model = model_of(tmp_path, "hippocampus", 1, 3, 3)
    values = np.random.default_rng(0).normal(300, 40, (20, 24, 18)).astype(np.float32)
    affine = np.array([[0, -1.5, 0, 7], [1.2, 0, 0, -3], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "x.nii.gz")
    written = predict_files(model, [tmp_path / "x.nii.gz"], tmp_path / "out", uncertainty=True)
    assert [path.name for path in written] == ["x.nii.gz", "x_uncertainty.nii.gz"]
    mask, found = (nibabel.load(path) for path in written)
    assert found.shape == mask.shape == values.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)
    variance = np.asarray(found.dataobj)
    assert variance.dtype == np.float32
    assert 0 <= variance.min() < variance.max() <= 0.25
    # The mask is what it is without.
    (alone,) = predict_files(model, [tmp_path / "x.nii.gz"], tmp_path / "alone")
    assert alone.read_bytes() == written[0].read_bytes()
    # Of an image that is turned it is the same map, turned.
    turned = nibabel.Nifti1Image(values[::-1], affine @ np.diag([-1, 1, 1, 1.0]))
    nibabel.save(turned, tmp_path / "t.nii.gz")
    again = predict_files(model, [tmp_path / "t.nii.gz"], tmp_path / "out", uncertainty=True)
    np.testing.assert_allclose(
        np.asarray(nibabel.load(again[1]).dataobj)[::-1], variance, atol=1e-5
    )


def test_a_map_of_a_picture_is_tiff_and_that_of_an_array_an_array(tmp_path):
    model = model_of(tmp_path, "skin", 3, 2, 2)
    picture = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.savez(tmp_path / "b.npz", image=picture.transpose(2, 0, 1))
    files = [tmp_path / "a.png", tmp_path / "b.npz"]
    written = predict_files(model, files, tmp_path / "out", uncertainty=True)
    assert [path.name for path in written] == [
        *("a.png", "a_uncertainty.tif", "b.npz", "b_uncertainty.npz")
    ]
    found = np.asarray(Image.open(written[1]))
    assert found.dtype == np.float32
    assert found.shape == (40, 52)
    np.testing.assert_allclose(found, np.load(written[3])["uncertainty"], atol=1e-6)


def test_a_map_that_would_replace_another_result_is_refused(tmp_path):
    model = model_of(tmp_path, "hippocampus", 1, 3, 3)
    values = np.random.default_rng(0).normal(300, 40, (20, 24, 18)).astype(np.float32)
    for name in ("x.nii.gz", "x_uncertainty.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / name)
    files = [tmp_path / "x.nii.gz", tmp_path / "x_uncertainty.nii.gz"]
    with pytest.raises(ConsiliumError, match="would both be"):
        predict_files(model, files, tmp_path / "out", uncertainty=True)
    assert not (tmp_path / "out").exists()


def test_a_classifier_has_no_map(classifier):
    with pytest.raises(ConsiliumError, match="--uncertainty is a map beside a mask"):
        predict_files(
            classifier, [classifier.parent / "x.npz"], classifier.parent / "o", uncertainty=True
        )
    assert load_model(classifier) is not None
