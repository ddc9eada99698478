"""A model of a described set says what the set is, so that it can be used where the set is not."""

import json

import pytest
from torch import nn

from federated.data.folders.families import Family
from federated.errors import ConsiliumError
from federated.settings.description import Columns, Description
from federated.settings.networks import SmallCNN, UNet
from federated.weights.model_file import ModelHeader, load_model, read_header, save_model

SEGMENTED = Description(
    task="segmentation",
    kind="volumes",
    modalities=("T1",),
    labels={"background": 0, "tumour": [2, 4]},
    spacing=(1.0, 1.0, 3.0),
    shape=(16, 16, 8),
    whole=True,
    columns=Columns(patient="name of the patient", site="hospital", images=("file",)),
    licence="CC0",
)
CLASSIFIED = Description(
    task="classification",
    kind="pictures",
    labels={"normal": 0, "ill": 1},
    shape=(24, 16),
    whole=True,
    licence="CC0",
)


def header(described: Description, **changes) -> ModelHeader:
    network = UNet(name="unet", norm="instance", width=8) if described.segments else SmallCNN()
    values = {
        "channels": described.channels,
        "classes": 2,
        "dims": described.dims,
        "size": None,
        "dataset": "mine",
        "data_source": "files",
        "described": described.of_model(),
    }
    return ModelHeader(network, **(values | changes))


@pytest.mark.parametrize("described", [SEGMENTED, CLASSIFIED])
def test_a_file_gives_the_description_back_without_columns_of_the_table(tmp_path, described):
    told = header(described)
    model: nn.Module = told.build(seed=0)
    save_model(tmp_path / "m.safetensors", model, told)
    read = read_header(tmp_path / "m.safetensors")
    assert read.described == described.of_model()
    assert "hospital" not in read.to_text()
    assert read.class_names() == described.classes
    load_model(tmp_path / "m.safetensors")


def test_the_family_and_the_way_of_preparing_follow_from_the_header():
    family = header(SEGMENTED).family()
    assert isinstance(family, Family)
    assert family.label_of(4) == family.label_of(2) == 1
    assert family.unknown_labels([0, 1, 2, 3, 4]) == (1, 3)
    assert header(SEGMENTED).class_family() is None
    assert header(CLASSIFIED).family() is None
    prepared = header(CLASSIFIED).class_family()
    assert prepared is not None
    assert prepared.shape == (24, 16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"a": 0, "b": 1, "c": 2}}, "other images"),
        ({"shape": "auto"}, "other images"),
        ({"shape": [3, 3, 3]}, "not possible"),
        ({"folder": "../x"}, "not possible"),
    ],
)
def test_a_description_that_is_not_of_the_network_is_refused(change, said):
    text = json.loads(header(SEGMENTED).to_text())
    text["described"] |= change
    with pytest.raises(ValueError, match=said):
        ModelHeader.from_text(json.dumps(text))


def test_a_header_of_a_known_set_says_nothing_of_descriptions(tmp_path):
    plain = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "medmnist")
    assert "described" not in plain.to_text()
    with pytest.raises(ConsiliumError):
        read_header(tmp_path / "none")
