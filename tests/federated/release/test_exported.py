"""ONNX and TorchScript of every network give torch's outputs, at sizes they were not traced at."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from federated.data.folders.families import FAMILIES
from federated.data.folders.prepared_case import prepare_case
from federated.errors import ConsiliumError
from federated.inference.model_input import segmented
from federated.learning.classification import predict
from federated.release import exported
from federated.release.exported import (
    compare_onnx,
    compare_torchscript,
    multiples,
    onnx_session,
    to_onnx,
    to_torchscript,
    trial_inputs,
)
from federated.settings.networks import DPResNet, ResNet3D, ShallowCNN, SmallCNN
from federated.weights.model_file import ModelHeader, load_model, read_header
from tests.conftest import PROJECT, REAL_DATA
from tests.federated.release.inside import found_in
from tests.federated.release.made_models import PICTURES, PLANNED, VESSELS, network_of

VOLUMES = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
HEADERS = {
    "small_cnn": PICTURES,
    "batch norm": replace(PICTURES, network=SmallCNN(norm="batch")),
    "small_cnn of small volumes": replace(VOLUMES, size=16),
    "small_cnn of larger pictures": replace(PICTURES, size=64),
    "shallow_cnn": replace(PICTURES, network=ShallowCNN()),
    "dp_resnet": replace(PICTURES, network=DPResNet(norm="batch_fixed")),
    "resnet3d": replace(VOLUMES, network=ResNet3D(), size=12),
    "acs": replace(VOLUMES, network=ResNet3D(conv="acs"), size=12),
    "unet": VESSELS,
    "nnunet": PLANNED,
}
TRAINED = REAL_DATA.parent / "faults/model/hippocampus.safetensors"


@pytest.mark.parametrize("name", HEADERS)
def test_each_network_gives_torchs_outputs(name):
    header = HEADERS[name]
    network, inputs = network_of(header), trial_inputs(header)
    assert len({images.shape for images in inputs}) == len(inputs) > 1
    assert max(len(images) for images in inputs) > 1
    onnx = compare_onnx(network, header, to_onnx(network, header), inputs)
    traced = compare_torchscript(network, header, to_torchscript(network, header, "{}"), inputs)
    for found in (onnx, traced):
        assert found.equal
        assert max(found.predicted, found.largest) < 1e-4
        assert found.outputs > 0.01


def test_an_onnx_network_says_itself_what_it_takes_and_gives():
    onnx = pytest.importorskip("onnx")
    for header, takes, gives in (
        (PICTURES, "divided by 255", "softmax over the classes"),
        (VESSELS, "PrepareCase", "each class and voxel"),
    ):
        told = onnx.load_from_string(to_onnx(network_of(header), header)).metadata_props
        found = {each.key: each.value for each in told}
        assert takes in found["images"]
        assert gives in found["outputs"]
        assert found["classes"].split("\n") == list(header.class_names())
        assert found["temperature"] == "1.0"


def test_values_of_0_to_1_give_what_prediction_does_of_0_to_255():
    network = network_of(PICTURES)
    images = np.random.default_rng(0).integers(0, 256, (3, *PICTURES.image_shape()), np.uint8)
    said = torch.as_tensor(images, dtype=torch.float32) / 255
    logits = onnx_session(to_onnx(network, PICTURES))(said)
    wanted = predict(network, images, torch.device("cpu"), PICTURES.classes)
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), wanted, atol=1e-4)


def test_sizes_are_multiples_of_what_a_network_halves():
    assert multiples(VESSELS) == (8, 8)
    assert multiples(PLANNED) == (4, 2)
    shapes = [tuple(images.shape) for images in trial_inputs(PLANNED)]
    assert shapes == [(2, 3, 16, 24), (1, 3, 16, 24), (1, 3, 20, 26), (3, 3, 12, 22)]


def test_other_weights_are_told_from_torchs():
    network, inputs = network_of(PICTURES), trial_inputs(PICTURES)
    content = to_onnx(network, PICTURES)
    with torch.no_grad():
        network.head.bias[2] += 3e-3
    found = compare_onnx(network, PICTURES, content, inputs)
    assert not found.equal
    assert found.largest == pytest.approx(3e-3, rel=1e-2)


def test_outputs_that_are_no_numbers_are_never_equal():
    network = network_of(PICTURES)
    with torch.no_grad():
        network.head.bias[2] = np.nan
    content = to_onnx(network, PICTURES)
    found = compare_onnx(network, PICTURES, content, trial_inputs(PICTURES))
    assert not found.equal
    assert found.predicted == found.largest == np.inf


def test_numbers_are_compared_as_they_leave_the_network():
    header = replace(PICTURES, dataset="retinamnist", classes=1)
    network = network_of(header)
    content = to_onnx(network, header)
    assert compare_onnx(network, header, content, trial_inputs(header)).equal
    with torch.no_grad():
        network.head.bias += 3e-4
    found = compare_onnx(network, header, content, trial_inputs(header))
    assert found.predicted == pytest.approx(found.largest, abs=1e-6)
    assert not found.equal


class Unwritable(nn.Module):
    """Its outputs depend on a value in a way that ONNX has no operation for."""

    def forward(self, images):
        return torch.linalg.eigvals(images[:, 0, :4, :4]).real


def test_a_network_that_cannot_be_written_says_so_in_a_paragraph():
    with pytest.raises(ConsiliumError, match="cannot be written as ONNX") as refused:
        to_onnx(Unwritable(), PICTURES)
    assert "\n" not in str(refused.value)


def test_what_onnxruntime_does_not_run_is_told_in_a_paragraph():
    with pytest.raises(ConsiliumError, match="onnxruntime does not run this network"):
        onnx_session(b"no network")


def test_without_the_extra_a_person_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConsiliumError, match="needs the package onnx and onnxruntime") as refused:
        exported.require("onnx", "onnxruntime")
    assert "extra `release`" in str(refused.value)


@pytest.mark.skipif(not TRAINED.is_file(), reason="the real data are not there")
def test_masks_of_a_trained_model_are_the_same_on_real_cases():
    header, network = read_header(TRAINED), load_model(TRAINED)
    family = header.family()
    assert family is not None
    session = onnx_session(to_onnx(network, header))

    class ByOnnx(nn.Module):
        def forward(self, images):
            return session(images)

    listing = FAMILIES["hippocampus"].find(REAL_DATA / "hippocampus")
    for files in listing.cases[:2]:
        case = prepare_case(family, files)
        masks = [case.to_own_grid(segmented(m, family, case)) for m in (network, ByOnnx())]
        assert masks[0].any()
        assert (masks[0] == masks[1]).mean() > 0.9999


def test_torchscript_does_not_say_from_which_files_it_was_traced():
    wanted = {str(PROJECT), str(Path(torch.__file__).parent), str(Path.home())}
    for header in (PICTURES, PLANNED):
        network, metadata = network_of(header), '{"name": "made"}'
        content = to_torchscript(network, header, metadata)
        assert found_in([("model.ts", content)], wanted) == []
        # What torch writes by itself says so, or this test would find nothing anywhere.
        whole = io.BytesIO()
        inputs = trial_inputs(header)
        torch.jit.save(torch.jit.trace(network, inputs[0]), whole)
        assert found_in([("model.ts", whole.getvalue())], wanted)
        kept = {"metadata.json": ""}
        stripped = torch.jit.load(io.BytesIO(content), _extra_files=kept)
        assert kept["metadata.json"].decode() == metadata
        plain = torch.jit.load(io.BytesIO(whole.getvalue()))
        for images in inputs:
            assert torch.equal(stripped(images), plain(images))
        # It can be kept once more, as whoever gets it may do.
        again = io.BytesIO()
        torch.jit.save(stripped, again)
        assert torch.equal(
            torch.jit.load(io.BytesIO(again.getvalue()))(inputs[0]), plain(inputs[0])
        )


def test_onnx_does_not_say_from_which_files_it_was_traced():
    wanted = {str(PROJECT), str(Path(torch.__file__).parent), str(Path.home())}
    for header in (PICTURES, PLANNED):
        assert found_in([("model.onnx", to_onnx(network_of(header), header))], wanted) == []
