"""The prepared folder of an experiment."""

import json
import shutil

import pytest

from federated.data.dataset import LocatedFile
from federated.data.folders.dataset import folder_md5
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.errors import ConsiliumError
from federated.run.prepared import PreparedFolder


def test_data_put_together_from_links_are_kept_as_files(tmp_path):
    plain, linked = tmp_path / "plain", tmp_path / "elsewhere" / "hippocampus"
    write_phantom(FAMILIES["hippocampus"], plain, 3, seed=0, shape=(16, 16, 16))
    (linked / "images").mkdir(parents=True)
    for path in (plain / "images").iterdir():
        (linked / "images" / path.name).symlink_to(f"../../../plain/images/{path.name}")
    (linked / "labels").symlink_to("../../plain/labels")
    md5 = folder_md5(linked)
    kept = PreparedFolder(tmp_path / "prepared").store_dataset(LocatedFile(linked, "files", md5))
    assert not [path for path in kept.path.rglob("*") if path.is_symlink()]
    shutil.rmtree(linked)
    shutil.rmtree(plain)
    assert folder_md5(kept.path) == md5


@pytest.mark.parametrize("file", ["../secret.npz", "/etc/passwd", "", "..", "missing.npz", None])
def test_the_data_file_of_a_prepared_folder_lies_in_it(tmp_path, file):
    (tmp_path / "secret.npz").write_bytes(b"")
    place = tmp_path / "prepared" / "dataset"
    place.mkdir(parents=True)
    text = json.dumps({"file": file, "source": "files", "md5": "0"})
    (place / "dataset.json").write_text(text)
    with pytest.raises(ConsiliumError, match=r"which its dataset\.json names"):
        PreparedFolder(tmp_path / "prepared").data()
