"""fl-round on photographs with masks, and what its model says of files."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.medmnist.files import dataset_info
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.run.folder import RunFolder
from flows.round import fl_round
from flows.steps import evaluate_model, export_run, run_step
from tasks import track
from tasks.registered_model import registered_weights
from tests.conftest import TINY_PARAMS

pytestmark = pytest.mark.usefixtures("plainly")

EYES = {
    "seed": 0,
    "data": {"dataset": "retina", "source": "files"},
    "sites": {"count": 2, "partition": "natural", "min_cases": 2},
    "validate": {},
    "model": {"name": "unet", "norm": "instance", "width": 8},
    "training": {"lr": 0.01, "batch_size": 4, "patches_per_case": 2},
    "selection": {"metric": "val/dice", "keep": "last"},
}


@pytest.fixture
def eyes(project):
    write_phantom(FAMILIES["retina"], project / "data" / "retina", 16, seed=0, shape=(100, 110))
    experiments = TINY_PARAMS["experiments"] | {"eyes": EYES}
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS | {"experiments": experiments}))
    return project


@pytest.mark.usefixtures("prefect_server")
def test_a_run_segments_registers_draws_and_predicts(eyes):
    folder = RunFolder(Path(fl_round("eyes", ["sites.overlays=true"], rounds=3)))
    summary = json.loads(folder.summary_path.read_text())
    assert summary["task"] == "segmentation"
    assert summary["sites"] == ["site-chasedb1", "site-drive"]
    assert summary["metrics"]["test"]["dice"] > 0.5
    assert set(summary["metrics"]["test"]) >= {"dice", "dice_sd", "dice_vessel", "hd95", "assd"}
    assert summary["per_site"]["site-drive"]["test"]["dice"] > 0.4

    pictures = {f"{s}-{w}.png" for s in summary["sites"] for w in ("worst", "median", "best")}
    assert {path.name for path in (folder.root / "overlays").iterdir()} == pictures
    client = track.client()
    kept = client.list_artifacts(summary["mlflow_run_id"], "overlays")
    assert {artifact.path.split("/")[-1] for artifact in kept} == pictures
    tracked = client.get_run(summary["mlflow_run_id"]).data.metrics
    assert tracked["site-drive/test/dice"] == summary["per_site"]["site-drive"]["test"]["dice"]

    photograph = eyes / "data/retina/drive/images/21_training.tif"
    truth = np.asarray(
        Image.open(eyes / "data/retina/drive/1st_manual/21_manual1.gif").convert("L")
    )
    array = eyes / "again.npz"
    np.savez(array, image=np.moveaxis(np.asarray(Image.open(photograph)), -1, 0))
    weights = registered_weights("eyes@champion").path
    mask_path, array_path = predict_files(weights, [photograph, array], eyes / "masks")
    assert mask_path.name == "21_training.png"
    mask = np.asarray(Image.open(mask_path))
    assert mask.shape == (100, 110)
    assert set(np.unique(mask)) == {0, 255}
    assert 2 * (mask & truth > 0).sum() / ((mask > 0).sum() + (truth > 0).sum()) > 0.5
    np.testing.assert_array_equal(255 * np.load(array_path)["mask"], mask)

    export_run(folder, eyes / "out")
    header = (eyes / "out" / "rounds.csv").read_text().splitlines()[0]
    assert header == "round,split,score,dice,hd95,assd,loss"


def test_the_stages_of_dvc_leave_out_a_bad_case_and_evaluate(eyes):
    mask = eyes / "data/retina/drive/1st_manual/22_manual1.gif"
    Image.fromarray(np.zeros((100, 110), np.uint8)).save(mask)
    from federated.configuration.load import load_experiment

    overrides = ["validate.on_failure=drop-case"]
    experiment = load_experiment("eyes", overrides)
    for step in ("download", "partition", "validate"):
        said = run_step(step, experiment)
    assert said.endswith("excluded sites: none; cases left out: 1")
    folder = RunFolder(
        Path(fl_round("eyes", overrides, 1, prepared="data/prepared/eyes", register_model=False))
    )
    cases = sum(
        folder.case_counts().cases(site, split)
        for site in folder.sites()
        for split in ("train", "val", "test")
    )
    assert cases == 15
    assert not (folder.root / "overlays").exists()
    metrics = evaluate_model(experiment, folder.model_path, eyes / "metrics.json")
    summary = json.loads(folder.summary_path.read_text())
    assert metrics == pytest.approx(summary["metrics"]["test"])


class TestPredict:
    @pytest.fixture
    def model(self, tmp_path):
        from federated.settings.networks import UNet
        from federated.weights.model_file import ModelHeader, save_model
        from tests.networks import build_model

        network = build_model(
            "unet", channels=1, classes=3, dims=3, norm="instance", seed=0, width=8
        )
        unet = UNet(norm="instance", width=8)
        header = ModelHeader(unet, 1, 3, 3, None, "hippocampus", "phantom")
        save_model(tmp_path / "model.safetensors", network, header)
        write_phantom(FAMILIES["hippocampus"], tmp_path / "h", 1, 0, (20, 24, 18))
        return tmp_path / "model.safetensors", next((tmp_path / "h/images").iterdir())

    def test_a_volume_keeps_its_name_grid_and_affine(self, model, tmp_path):
        weights, path = model
        affine = np.array([[-1, 0, 0, 5], [0, 0, 2, 9], [0, 1, 0, -4], [0, 0, 0, 1]], float)
        values = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
        (written,) = predict_files(weights, [path], tmp_path / "masks")
        mask = nibabel.load(written)
        assert written.name == path.name
        assert mask.shape == (20, 24, 18)
        np.testing.assert_allclose(mask.affine, affine)

    def test_what_cannot_be_predicted_is_refused(self, model, tmp_path):
        weights, path = model
        with pytest.raises(ConsiliumError, match="would replace an input"):
            predict_files(weights, [path], path.parent)
        with pytest.raises(ConsiliumError, match=r"of no kind that can be predicted"):
            predict_files(weights, [tmp_path / "notes.txt"], tmp_path / "masks")
        with pytest.raises(ConsiliumError, match="cannot be read"):
            predict_files(weights, [tmp_path / "absent.nii.gz"], tmp_path / "masks")
        assert not (tmp_path / "masks").exists() or not list((tmp_path / "masks").iterdir())
        with pytest.raises(ConsiliumError, match=r"not of the form NAME@ALIAS"):
            registered_weights("no model")


def test_a_classifier_writes_probabilities(project):
    fl_round("tiny", rounds=1)
    arrays = project / "data/medmnist/bloodmnist.npz"
    path, how = predict_files(registered_weights("tiny/1").path, [arrays], project / "out")
    assert how.name == "probabilities.json"
    head, *rows = csv.reader(path.read_text().splitlines())
    assert head == ["file", "array", "index", *dataset_info("bloodmnist").classes]
    assert len(rows) == 48 + 16 + 24
    assert sum(map(float, rows[0][3:])) == pytest.approx(1)
    with pytest.raises(ConsiliumError, match=r"no model 'tinny@champion'.*Registered: tiny"):
        registered_weights("tinny@champion")
