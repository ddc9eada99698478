import mlflow
import numpy as np
import pytest

from federated.learning.classification import predict
from federated.settings.networks import SmallCNN
from federated.weights.model_file import ModelHeader, load_model, save_model
from tasks import track
from tasks.register import judge, register, register_sites
from tasks.registered_model import registered_weights
from tests.networks import build_model


@pytest.mark.parametrize(
    ("metric", "value", "best", "version", "champion", "reason"),
    [
        ("val/auc", 0.9, None, None, True, "champion: the first version, with val/auc 0.9000"),
        ("val/auc", 0.9, 0.8, "3", True, "improves on 0.8000 of version 3"),
        ("val/auc", 0.8, 0.8, "3", False, "does not improve on 0.8000 of version 3"),
        ("val/loss", 0.9, 0.8, "3", False, "does not improve on 0.8000"),
        ("val/loss", 0.7, 0.8, "3", True, "improves on 0.8000"),
        ("val/auc", None, 0.8, "3", False, "could not be computed"),
        ("val/auc", 0.5, None, "3", True, "version 3 has no val/auc"),
    ],
)
def test_the_champion_changes_only_for_a_better_one(metric, value, best, version, champion, reason):
    decided, said = judge(metric, value, best, version)
    assert decided is champion
    assert reason in said


@pytest.fixture
def model_file(tmp_path):
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    header = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
    save_model(tmp_path / "model.safetensors", model, header)
    return tmp_path / "model.safetensors"


def test_a_registered_model_predicts_and_the_alias_follows_the_better_one(model_file, project):
    client = track.client()
    experiment = client.create_experiment("tiny", artifact_location=(project / "a").as_uri())

    def registered(value):
        run = client.create_run(experiment).info.run_id
        return register.fn("tiny", model_file, run, "val/auc", value)

    assert registered(0.7).champion
    assert registered(0.9).champion
    assert not registered(0.8).champion
    champion = client.get_model_version_by_alias("tiny", "champion")
    assert int(champion.version) == 2
    third = client.get_model_version("tiny", "3")
    assert "does not improve on 0.9000 of version 2" in third.tags["champion_reason"]

    served = mlflow.pyfunc.load_model("models:/tiny@champion")
    images = np.random.default_rng(0).integers(0, 255, (3, 1, 28, 28, 28), dtype=np.uint8)
    import torch

    expected = predict(load_model(model_file), images, torch.device("cpu"), 2)
    np.testing.assert_allclose(served.predict(images), expected, rtol=1e-6)
    signature = served.metadata.signature
    assert signature.inputs.inputs[0].shape == (-1, 1, 28, 28, 28)
    kept = [p.name for p in (project / "a").rglob("*") if p.suffix in (".pkl", ".pth", ".pt")]
    assert kept == []


def test_sites_own_models_are_registered_and_tell_whose_they_are(model_file, project):
    client = track.client()
    header = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
    heads = {site: {"head.bias": np.full(2, k, np.float32)} for k, site in enumerate(("a", "b"))}
    save_model(model_file, load_model(model_file), header, heads)
    experiment = client.create_experiment("tiny", artifact_location=(project / "a").as_uri())
    for better in ("a", "b"):
        run = client.create_run(experiment).info.run_id
        version = register.fn("tiny", model_file, run, "val/auc", 0.7).version
        values = {site: 0.9 if site == better else 0.8 for site in heads}
        register_sites.fn("tiny", version, "val/auc", values)
    for site, number in (("a", 1), ("b", 2)):
        champion = client.get_model_version_by_alias(f"tiny.{site}", "champion")
        assert int(champion.version) == number
        registered = registered_weights(f"tiny.{site}@champion")
        path, whose = registered.path, registered.site
        assert (registered.name, registered.version) == (f"tiny.{site}", str(number))
        assert whose == site
        assert (
            load_model(path, whose).head.bias.detach().numpy() == heads[site]["head.bias"]
        ).all()
