import shutil
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests

from federated.data.dataset import SPLITS
from federated.data.load import load, locate
from federated.data.medmnist import files as medmnist
from federated.errors import ConsiliumError
from federated.settings.sections import DataSettings
from tests.conftest import REAL_DATA, tiny_volumes

INFO = medmnist.dataset_info("adrenalmnist3d")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever tries to connect fails at once, as behind a hospital's firewall."""

    def refuse(*_, **__):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests.Session, "request", refuse)


@pytest.fixture
def write_npz(write_npz):
    """Write arrays, or small volumes, where AdrenalMNIST3D is looked for below ``tmp_path``."""
    return lambda arrays=None: write_npz(arrays or tiny_volumes(), "adrenalmnist3d")


@pytest.mark.parametrize("name", medmnist.DATASETS)
def test_every_set_has_address_and_md5_for_both_sizes(name):
    info = medmnist.dataset_info(name)
    assert len(info.classes) >= 2 or info.task == "regression"
    assert info.dims == (3 if name.endswith("3d") else 2)
    assert len(medmnist.expected_md5(name, 28)) == 32
    assert medmnist.expected_md5(name, 28) != medmnist.expected_md5(name, 64)
    assert medmnist.file_name(name, 64).endswith("_64.npz")


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="the real AdrenalMNIST3D is not at hand")
def test_the_real_file_is_found_by_consilium_data_and_read(monkeypatch, tmp_path):
    monkeypatch.setenv("CONSILIUM_DATA", str(REAL_DATA))
    settings = DataSettings(dataset="adrenalmnist3d", root=tmp_path)
    located = locate(settings)
    dataset = load(located, settings)
    assert located.source == "medmnist"
    assert {split: len(dataset.labels[split]) for split in SPLITS} == dict(INFO.cases)
    assert dataset.images["train"].shape == (1188, 1, 28, 28, 28)


def test_a_file_of_ones_own_is_taken_as_files(write_npz, tmp_path):
    write_npz()
    settings = DataSettings(dataset="adrenalmnist3d", source="files", root=tmp_path / "data")
    assert locate(settings).source == "files"


def test_a_wrong_md5_is_refused(write_npz, tmp_path):
    write_npz()
    settings = DataSettings(dataset="adrenalmnist3d", root=tmp_path / "data")
    with pytest.raises(ConsiliumError, match=r"not the published adrenalmnist3d: its MD5 is"):
        locate(settings)


def test_a_wrong_md5_is_not_papered_over_with_a_phantom(write_npz, tmp_path):
    write_npz()
    settings = DataSettings(dataset="adrenalmnist3d", source="auto", root=tmp_path / "data")
    with pytest.raises(ConsiliumError, match="MD5"):
        locate(settings)


def test_no_network_and_no_file_is_one_paragraph_and_leaves_nothing(tmp_path):
    settings = DataSettings(dataset="organmnist3d", root=tmp_path)
    with pytest.raises(ConsiliumError, match=r"could not be downloaded.*CONSILIUM_DATA"):
        locate(settings)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_download_is_announced_once_and_not_tried_again_where_it_failed(tmp_path, capsys, caplog):
    settings = DataSettings(dataset="retinamnist", source="auto", root=tmp_path)
    for _ in range(3):
        assert locate(settings).source == "phantom"
    told = capsys.readouterr().err + caplog.text
    assert told.count("Downloading retinamnist from https://") == 1
    # Why it failed is said once as well, with the address.
    assert told.count("Note: retinamnist is not on this machine and could not be downloaded") == 1
    assert told.count("zenodo") == 2


def test_whoever_needs_no_download_is_told_what_is_missing_or_given_a_phantom(tmp_path, capsys):
    settings = DataSettings(dataset="retinamnist", root=tmp_path)
    with pytest.raises(ConsiliumError, match=r"there is no .*retina.*`consilium prepare` download"):
        locate(settings, download=False)
    auto = settings.model_copy(update={"source": "auto"})
    assert locate(auto, download=False).source == "phantom"
    assert "Downloading" not in capsys.readouterr().err


def test_a_missing_own_file_names_the_places_looked_at(tmp_path):
    settings = DataSettings(dataset="adrenalmnist3d", source="files", root=tmp_path)
    with pytest.raises(ConsiliumError, match=r"data.source=files, but there is no .*adrenal"):
        locate(settings)


def test_a_downloaded_file_with_a_wrong_md5_is_not_kept(tmp_path, monkeypatch):
    def deliver(url, output_file, _):
        Path(output_file).write_bytes(b"half a file")

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: deliver)
    with pytest.raises(ConsiliumError, match="could not be downloaded"):
        medmnist.download("organmnist3d", 28, tmp_path)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_downloaded_file_with_the_right_md5_is_kept(tmp_path, monkeypatch, write_npz):
    source = write_npz()

    def deliver(url, output_file, _):
        shutil.copy(source, output_file)

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: deliver)
    monkeypatch.setattr(medmnist, "expected_md5", lambda *_: medmnist.md5_of(source))
    located = medmnist.download("adrenalmnist3d", 28, tmp_path / "root")
    assert located.path == tmp_path / "root" / "medmnist" / "adrenalmnist3d.npz"
    assert located.path.read_bytes() == source.read_bytes()


def test_a_truncated_npz_is_refused(write_npz):
    path = write_npz()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ConsiliumError, match=r"adrenalmnist3d.npz cannot be read.*truncated"):
        medmnist.read(path, INFO, 28)


def test_bytes_damaged_inside_an_npz_are_refused(write_npz):
    path = write_npz()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ConsiliumError, match="damaged"):
        medmnist.read(path, INFO, 28)


def test_a_pickle_inside_an_npz_is_refused(write_npz):
    arrays = tiny_volumes()
    arrays["val_labels"] = np.array([{"a": 1}] * 16, dtype=object)
    with pytest.raises(ConsiliumError, match="plain arrays"):
        medmnist.read(write_npz(arrays), INFO, 28)


def break_arrays(**changes):
    return {k: v for k, v in (tiny_volumes() | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_labels": None}, "lacks val_labels"),
        ({"test_images": np.zeros((24, 28, 28), np.uint8)}, "test_images has shape"),
        ({"test_images": np.zeros((24, 28, 28, 28), np.float32)}, "type float32"),
        ({"test_images": np.zeros((0, 28, 28, 28), np.uint8)}, "test_images has shape"),
        ({"train_labels": np.zeros((5, 1), np.uint8)}, "train_labels has shape"),
        ({"train_labels": np.zeros((48, 1), np.float32)}, "type float32"),
        ({"train_labels": np.full((48, 1), 7, np.uint8)}, "labels from 7 to 7"),
    ],
)
def test_an_array_that_breaks_the_schema_is_named(write_npz, changes, said):
    with pytest.raises(ConsiliumError, match=said):
        medmnist.read(write_npz(break_arrays(**changes)), INFO, 28)


def test_channels_come_first(tmp_path):
    info = medmnist.dataset_info("bloodmnist")
    arrays = {}
    for split in SPLITS:
        arrays[f"{split}_images"] = np.zeros((4, 28, 28, 3), np.uint8)
        arrays[f"{split}_images"][..., 2] = 9
        arrays[f"{split}_labels"] = np.zeros((4, 1), np.uint8)
    np.savez(tmp_path / "blood.npz", **arrays)
    images = medmnist.read(tmp_path / "blood.npz", info, 28).images["train"]
    assert images.shape == (4, 3, 28, 28)
    assert (images[:, 2] == 9).all()
