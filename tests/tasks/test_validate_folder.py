"""Validation of a segmentation set: every fault named at once, cases left out, sites excluded."""

import json

import nibabel
import numpy as np
import pytest

from federated.configuration.load import resolve
from federated.data.folders.dataset import read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from tasks.validate import validate
from tests.federated.faulty_folder import write_faulty

RULES = {
    "case_00000": "a mask for each image",
    "case_00001": "an image for each mask",
    "case_00002": "one shape for all files of a case",
    "case_00003": "one affine for all files of a case",
    "case_00004": "known labels",
    "case_00005": "a mask that is not empty",
    "case_00006": "a size like the others",
    "case_00007": "intensities like the others",
    "case_00008": "readable files",
    "case_00009": "readable files",
    "case_00011": "no copy of another case",
    "case_00012": "readable files",
    "case_00013": "no NaN",
}


def which(case):
    """Of two copies the one that is listed later is named, and splits are listed one by one."""
    return "case_00011" if case == "case_00010" else case


def check(folder, out, on_failure, sites=1, name="kidney"):
    experiment = resolve(
        name,
        {
            "data": {"dataset": name, "source": "files", "root": str(folder.parent)},
            "sites": {"count": sites, "partition": "iid", "min_cases": 3},
            "validate": {"on_failure": on_failure},
            "model": {"name": "unet"},
            "selection": {"metric": "val/dice"},
            **{"strategy": {"name": "fedavg"}, "privacy": {"name": "none"}},
            **{"compression": {"name": "none"}, "protection": {"name": "plain"}},
            # Judged in this process: one of its own imports Great Expectations each time.
            "runner": {"name": "serial"},
        },
        "params.yaml",
    )
    dataset = read_folder(folder, name)
    partition = partition_dataset(dataset, experiment.sites, 0)
    validation = validate.fn(experiment, dataset, partition, out)
    return validation, dataset, json.loads((out / "validation.json").read_text())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "kidney"
    write_faulty(folder, cases=30)
    return folder


def test_every_fault_is_named_with_its_path_and_rule_in_one_pass(faulty, tmp_path):
    with pytest.raises(ConsiliumError, match="1 of 1 sites fail") as caught:
        check(faulty, tmp_path, "abort")
    assert (tmp_path / "data_docs" / "index.html").is_file()
    broken = json.loads((tmp_path / "validation.json").read_text())["broken"]
    named = {
        (which(path.split("/")[-2]), one["rule"].split(",")[0])
        for rules in broken.values()
        for one in rules
        for path in one["where"]
    }
    assert set(RULES.items()) <= named
    assert {case for case, _ in named} == set(RULES)
    message = str(caught.value)
    assert all(rule in message for rule in RULES.values())


def test_faulty_cases_are_dropped_and_the_rest_goes_on(faulty, tmp_path):
    validation, dataset, report = check(faulty, tmp_path, "drop-case")
    assert validation.excluded == ()
    dropped = {
        which(dataset.cases[split][index].name)
        for splits in validation.dropped.values()
        for split, indices in splits.items()
        for index in indices
    }
    # Case 1 has no image, so it is no case.
    assert dropped == set(RULES) - {"case_00001"}
    assert report["dropped_cases"] == {s: dict(d) for s, d in validation.dropped.items()}
    assert "no site" in report["failures"]
    assert "Failed" in (tmp_path / "data_docs" / "index.html").read_text()
    assert "Failed" not in (tmp_path / "data_docs" / "after_dropping" / "index.html").read_text()


def write_one_empty_mask(folder, cases):
    write_phantom(FAMILIES["kidney"], folder, cases, seed=0, shape=(16, 18, 20))
    path = folder / "case_00003" / "segmentation.nii.gz"
    empty = np.zeros((16, 18, 20), np.uint8)
    nibabel.save(nibabel.Nifti1Image(empty, np.diag([2.0, 2.0, 2.0, 1.0])), path)


def test_too_few_cases_are_named_beside_what_else_is_wrong(tmp_path):
    folder = tmp_path / "kidney"
    write_one_empty_mask(folder, 7)
    with pytest.raises(ConsiliumError, match="1 of 2 sites fail") as caught:
        check(folder, tmp_path / "out", "abort", sites=2)
    assert "at least 3 training cases (sites.min_cases): there are 2" in str(caught.value)
    assert "a mask that is not empty" in str(caught.value)


def test_a_site_can_be_excluded_for_one_bad_case(tmp_path):
    folder = tmp_path / "kidney"
    write_one_empty_mask(folder, 16)
    validation, _, report = check(folder, tmp_path / "out", "exclude-site", sites=2)
    assert len(validation.excluded) == 1
    assert report["excluded_sites"] == list(validation.excluded)
    assert validation.dropped == {}
    (said,) = report["failures"][validation.excluded[0]]
    assert said.startswith("a mask that is not empty: broken by 1 case")
    assert said.endswith("case_00003/segmentation.nii.gz)")


def refused(folder, out, **how):
    with pytest.raises(ConsiliumError) as caught:
        check(folder, out, "abort", **how)
    return str(caught.value)


def test_labels_that_are_cropped_away_are_named_before_training(tmp_path):
    folder = tmp_path / "hippocampus"
    write_phantom(FAMILIES["hippocampus"], folder, 6, seed=0, shape=(30, 40, 30))
    for path in (
        folder / "images/hippocampus_002.nii.gz",
        folder / "labels/hippocampus_002.nii.gz",
    ):
        image = nibabel.load(path)
        rng = np.random.default_rng(0)
        values = np.pad(np.asarray(image.dataobj), [(0, 60)] * 3)
        values = values + rng.normal(size=values.shape) if "images" in path.parts else values
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), image.affine), path)
    said = refused(folder, tmp_path / "out", name="hippocampus")
    rule = "all labelled voxels left in what the network sees: broken by 1 case"
    assert f"{rule}, for example anterior 0 of " in said
    assert "hippocampus_002.nii.gz" in said


def test_hidden_files_and_strays_are_named_in_one_pass_with_what_else_is_wrong(tmp_path):
    folder = tmp_path / "kidney"
    write_one_empty_mask(folder, 8)
    for case in sorted(folder.iterdir()):
        (case / "._imaging.nii.gz").write_bytes(b"Mac OS X")
    (folder / "case_00001" / "imaging.mha").touch()
    (folder / "old.zip").touch()
    said = refused(folder, tmp_path / "out")
    assert "a mask that is not empty: broken by 1 case" in said
    assert "no file that belongs to no case: broken by 2 cases" in said
    assert all(name in said for name in ("imaging.mha", "old.zip"))
    assert "._" not in said


def test_images_that_the_metadata_name_no_patient_of_are_named(tmp_path):
    folder = tmp_path / "skin"
    write_phantom(FAMILIES["skin"], folder, 8, seed=0, shape=(40, 48))
    rows = [f"{'' if n == 3 else n // 2},ISIC_{n:07d}" for n in range(7)]
    (folder / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id", *rows]))
    said = refused(folder, tmp_path / "out", name="skin")
    assert "a patient for each image, where a table is to name them: broken by 2 cases" in said
    assert all(name in said for name in ("ISIC_0000003.jpg", "ISIC_0000007.jpg"))


def test_masks_of_the_labels_of_brats_until_2022_are_named(tmp_path):
    folder = tmp_path / "brain"
    family = FAMILIES["brain"]
    write_phantom(family, folder, 6, seed=0, shape=(20, 20, 20))
    for case in family.find(folder).cases:
        mask = np.asarray(nibabel.load(case.mask).dataobj).copy()
        mask[mask == 3] = 0
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), case.mask)
    said = refused(folder, tmp_path / "out", name="brain")
    assert "known labels: broken by 6 cases, for example has the label 4 and no 3, as" in said
