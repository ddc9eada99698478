"""A model carries the scale of intensities it was trained on, and predicts on no other."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from federated.configuration.load import load_experiment, resolve
from federated.data.folders.families import FAMILIES
from federated.data.load import as_set, known_info
from federated.errors import ConsiliumError
from federated.inference.evaluation import experiment_of
from federated.inference.prediction import predict_files
from federated.settings.networks import UNet
from federated.weights.build import model_header
from federated.weights.model_file import ModelHeader, read_header, save_model
from tests.conftest import PROJECT
from tests.networks import build_model

STANDARD = (0.0, 8.0, 15.0, 24.0, 31.0, 42.0, 55.0, 63.0, 71.0, 86.0, 100.0)
TOLD = ", ".join(map(str, STANDARD))
NYUL = ["data.harmonise=nyul", f"data.landmarks={{MRI: [{TOLD}]}}"]


def experiment(*overrides):
    return load_experiment("hippocampus", overrides, PROJECT / "params.yaml")


def header(**changes):
    network = UNet(norm="instance", width=8)
    return ModelHeader(network, 1, 3, 3, None, "hippocampus", "phantom", **changes)


def save(folder, told):
    network = build_model("unet", channels=1, classes=3, dims=3, norm="instance", seed=0, width=8)
    save_model(folder / "model.safetensors", network, told)
    return folder / "model.safetensors"


def test_training_and_prediction_bring_images_to_one_scale():
    for overrides in ((), ("data.harmonise=percentiles",), NYUL):
        made = experiment(*overrides)
        told = model_header(made, known_info(made.data), "phantom")
        again = ModelHeader.from_text(told.to_text())
        assert again == replace(told, network=again.network)
        assert again.family() == as_set(FAMILIES["hippocampus"], made.data)
    assert again.family().standards == (STANDARD,)


def test_an_experiment_without_a_scale_is_written_as_it_was_before_there_were_any():
    assert not {"harmonise", "landmarks"} & set(experiment().to_json()["data"])
    assert "harmonise" not in header().to_text()
    kept = experiment(*NYUL).to_json()
    again = resolve(kept.pop("name"), json.loads(json.dumps(kept)), "experiment.json")
    assert again == experiment(*NYUL)
    assert hash(again.data) != hash(experiment().data)


def test_a_new_image_is_predicted_on_the_scale_of_the_model(tmp_path):
    """A gamma curve, as of another scanner, changes the masks of a model without a scale alone."""
    rng = np.random.default_rng(0)
    values = np.zeros((20, 24, 18))
    values[4:-4, 4:-4, 4:-4] = 100 + 40 * rng.random((12, 16, 10))
    for name, image in (("a", values), ("b", 9 * values**1.5)):
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii")
    agreement = []
    for place, told in enumerate((header(), header(harmonise="nyul", landmarks={"MRI": STANDARD}))):
        model, out = save(tmp_path, told), tmp_path / f"out{place}"
        predict_files(model, [tmp_path / "a.nii", tmp_path / "b.nii"], out)
        one, two = (np.asarray(nibabel.load(out / f"{n}.nii").dataobj) for n in "ab")
        agreement.append(float((one == two).mean()))
    assert agreement[0] < 0.97
    assert agreement[1] > 0.995


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"harmonise": "nyul"}, "needs data.landmarks"),
        ({"landmarks": {"MRI": STANDARD}}, "uses none"),
        ({"harmonise": "nyul", "landmarks": {"T1": STANDARD}}, "modalities"),
        ({"harmonise": "nyul", "landmarks": {"MRI": STANDARD[::-1]}}, "do not rise"),
        ({"harmonise": "nyul", "landmarks": {"MRI": STANDARD[:3]}}, "3 landmarks"),
        ({"harmonise": "percentiles", "dataset": "kidney"}, "Hounsfield"),
        ({"harmonise": "histogram"}, "harmonise"),
    ],
)
def test_a_header_with_a_scale_that_cannot_be_is_refused(tmp_path, change, said):
    value = json.loads(header().to_text()) | change
    with pytest.raises(ValueError, match=said):
        ModelHeader.from_text(json.dumps(value))


def test_a_model_is_not_evaluated_on_images_of_another_scale(tmp_path):
    model = save(tmp_path, header(harmonise="nyul", landmarks={"MRI": STANDARD}))
    assert read_header(model).harmonise == "nyul"
    for made in (experiment(), experiment("data.harmonise=percentiles")):
        with pytest.raises(ConsiliumError, match=r"data\.harmonise was nyul and is"):
            experiment_of(made, model)
    coarse = experiment(*NYUL, "data.spacing=2")
    with pytest.raises(ConsiliumError, match=r"data\.spacing was None and is 2"):
        experiment_of(coarse, model)
