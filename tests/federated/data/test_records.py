"""A record is told from others by its values alone."""

import os
from pathlib import Path

import nibabel
import numpy as np
import torch

from federated.data.folders.dataset import read_folder
from federated.data.folders.families import FAMILIES, CaseFiles
from federated.data.folders.phantom import write_phantom
from federated.data.partition import Partition
from federated.data.records import case_digest, identities, labelled_digests
from federated.data.site_cases import SiteCases


def test_a_record_is_the_same_under_another_name_compression_and_type(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    digests = set()
    for name, kind in (("a.nii.gz", np.int16), ("b.nii", np.int16), ("c.nii", np.float32)):
        nibabel.save(nibabel.Nifti1Image(values.astype(kind), np.eye(4)), tmp_path / name)
        nibabel.save(
            nibabel.Nifti1Image((values > 3).astype(np.uint8), np.eye(4)), tmp_path / f"m{name}"
        )
        digests.add(case_digest(CaseFiles(name, (tmp_path / name,), tmp_path / f"m{name}", name)))
    assert len(digests) == 1


def test_another_label_voxel_or_shape_is_another_record() -> None:
    images, labels = np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 1])
    one, other = labelled_digests(images, labels)
    assert one != other
    changed = images.copy()
    changed[0, 0, 0, 0] = 1
    assert labelled_digests(changed, labels)[0] != one
    assert labelled_digests(images.reshape(2, 1, 2, 8), labels)[0] != one


def test_taking_a_record_away_leaves_the_names_of_the_others() -> None:
    names = identities(["a", "b", "a", "c"])
    assert len(set(names)) == 4
    assert set(identities(["b", "a", "c"])) == set(names) - {"a-1"}
    assert set(identities(["c", "a", "b", "a"])) == set(names)


def test_a_record_is_read_again_with_every_run_so_that_it_is_that_of_what_is_trained_on(
    tmp_path: Path,
) -> None:
    """Whatever times its file has: it could be anybody's."""
    family = FAMILIES["hippocampus"]
    write_phantom(family, tmp_path, 6, 0, (20, 24, 18))
    dataset = read_folder(tmp_path, "hippocampus")
    partition = Partition({"a": {"train": (0,), "val": (), "test": ()}}, 1, 0)
    before = SiteCases(dataset, partition).of("a", "train")
    (digest,) = before.records
    prepared = before.case(0).whole.clone()
    path = dataset.cases["train"][0].images[0]
    times = path.stat()
    image = nibabel.load(path)
    changed = nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1].copy(), image.affine)
    nibabel.save(changed, path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    # In a run what was trained on stays, and so does what the ledger says of it.
    assert before.records == (digest,)
    assert torch.equal(before.case(0).whole, prepared)
    after = SiteCases(dataset, partition).of("a", "train")
    assert after.records != (digest,)
    assert not torch.equal(after.case(0).whole, prepared)
