"""MONAI loads a bundle and runs it, and evaluates nothing of what a data set says of itself."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.release import bundle
from federated.release.exported import to_torchscript, trial_inputs
from federated.release.network import network_of as network_of_header
from federated.weights.model_file import ModelHeader, save_model
from tests.federated.release.made_models import PICTURES, VESSELS, network_of

TRACED: dict[str, tuple[torch.nn.Module, bytes, bytes]] = {}


def traced(header: ModelHeader) -> tuple[torch.nn.Module, bytes, bytes]:
    """The network of a header, to look at, its weights and its trace, made once for all tests."""
    key = repr(replace(header, data_source=""))
    if key not in TRACED:
        network = network_of(header)
        TRACED[key] = network, bundle.state_file(network), to_torchscript(network, header, "{}")
    return TRACED[key]


def write_bundle(folder: Path, header: ModelHeader) -> torch.nn.Module:
    network, weights, trace = traced(header)
    for name, content in {
        bundle.WEIGHTS: weights,
        bundle.TORCHSCRIPT: trace,
        bundle.METADATA: bundle.as_json(
            bundle.metadata(header, "made", "2", ["No device."])
        ).encode(),
        bundle.INFERENCE: bundle.as_json(bundle.inference(header, "made", "2")).encode(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return network


def loaded(folder: Path, **arguments: object):
    from monai.bundle import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI warns of every bundle that it may run code
        return load(
            folder.name,
            bundle_dir=str(folder.parent),
            workflow_type="inference",
            device="cpu",
            **arguments,
        )


def run(folder: Path, **overrides: str) -> None:
    from monai.bundle import ConfigWorkflow

    workflow = ConfigWorkflow(
        config_file=str(folder / bundle.INFERENCE),
        logging_file=False,
        workflow_type="inference",
        bundle_root=str(folder),
        **overrides,
    )
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()


@pytest.mark.parametrize("header", [PICTURES, VESSELS], ids=["classes", "masks"])
def test_monai_loads_it_with_and_without_consilium(tmp_path, header):
    network = write_bundle(tmp_path / "bundle", header)
    images = trial_inputs(header)[1]
    with torch.inference_mode():
        wanted = network(images)
        assert torch.equal(loaded(tmp_path / "bundle")(images), wanted)
        trace, _, _ = loaded(tmp_path / "bundle", load_ts_module=True)
        torch.testing.assert_close(trace(images), wanted, rtol=1e-4, atol=1e-4)


def test_what_monai_writes_of_files_is_what_predict_writes(tmp_path):
    from PIL import Image

    network = write_bundle(tmp_path / "bundle", VESSELS)
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in" / "eye.png")
    run(tmp_path / "bundle", dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    save_model(tmp_path / "model.safetensors", network, VESSELS)
    files = [tmp_path / "in" / "eye.png"]
    (ours,) = predict_files(tmp_path / "model.safetensors", files, tmp_path / "ours")
    mask = np.asarray(Image.open(ours))
    assert 0 < (mask > 0).mean() < 1
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "eye.png")), mask)


def test_classes_of_arrays_are_those_of_torch(tmp_path):
    network = write_bundle(tmp_path / "bundle", PICTURES)
    (tmp_path / "in").mkdir()
    image = np.random.default_rng(0).integers(0, 255, (3, 28, 28), dtype=np.uint8)
    np.save(tmp_path / "in" / "cell.npy", image)
    run(tmp_path / "bundle", dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "out"))
    (line,) = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    with torch.inference_mode():
        wanted = network(torch.from_numpy(image[None] / np.float32(255))).softmax(dim=1)[0]
    found = [float(text) for text in line.split(",")[1:]]
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


def test_a_mask_never_replaces_its_image(tmp_path):
    from PIL import Image

    write_bundle(tmp_path / "bundle", VESSELS)
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in" / "eye.png")
    before = (tmp_path / "in" / "eye.png").read_bytes()
    with pytest.raises(RuntimeError) as failed:
        run(tmp_path / "bundle", dataset_dir=str(tmp_path / "in"), output_dir=str(tmp_path / "in"))
    assert (tmp_path / "in" / "eye.png").read_bytes() == before
    # MONAI wraps what a transform raises.
    why: BaseException | None = failed.value
    while why and not isinstance(why, ConsiliumError):
        why = why.__cause__ or why.__context__
    assert "would replace it" in str(why)


@pytest.mark.parametrize("start", ["$", "@", "%", " $", "“$"])
def test_nothing_that_a_data_set_says_is_evaluated(tmp_path, monkeypatch, start):
    """The names of classes come from whoever describes a data set."""
    from monai.bundle import ConfigParser

    monkeypatch.setenv("SEEN", "no")
    attack = f"{start}__import__('os').environ.update(SEEN='yes')"
    header = replace(VESSELS, data_source=attack)
    monkeypatch.setattr(ModelHeader, "class_names", lambda self: ("background", attack))
    write_bundle(tmp_path, header)
    parser = ConfigParser()
    parser.read_config(str(tmp_path / bundle.INFERENCE))
    parser.read_meta(str(tmp_path / bundle.METADATA))
    parser.get_parsed_content("_meta_")
    for name in ("header", "network_def", "postprocessing"):
        parser.get_parsed_content(name)
    assert os.environ["SEEN"] == "no"


@pytest.mark.parametrize("said", ["lesion #1", "my set @##x", "50 % of $x", "#", "@header"])
def test_what_a_data_set_says_is_read_from_the_bundle_as_it_was(tmp_path, said):
    from monai.bundle import ConfigParser

    header = replace(VESSELS, data_source=said)
    write_bundle(tmp_path, header)
    parser = ConfigParser()
    parser.read_config(str(tmp_path / bundle.INFERENCE))
    text = parser.get_parsed_content("header")
    assert json.loads(text) == json.loads(header.to_text())
    assert text.count("@") + text.count("#") + text.count("$") + text.count("%") == 0


def test_the_attack_works_on_what_is_not_made_inert(tmp_path, monkeypatch):
    from monai.bundle import ConfigParser

    monkeypatch.setenv("SEEN", "no")
    parser = ConfigParser({"a": "$__import__('os').environ.update(SEEN='yes')"})
    parser.get_parsed_content("a")
    assert os.environ["SEEN"] == "yes"


def test_a_header_that_is_none_is_refused_in_a_paragraph():
    with pytest.raises(ConsiliumError, match="not one of this project"):
        network_of_header("{}")
