"""A table may name DICOM series and contours: the cases are those of the same images as NIfTI."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.data.folders.described.case_table import find_cases
from federated.data.folders.described.family import described_family
from federated.data.folders.prepared_case import PreparedCase, prepare_case
from federated.settings.description import Description
from flows.own_data import facts, identifiers, look
from tests.conftest import REAL_DATA

DICOM = REAL_DATA / "dicom"
PATIENTS = ("STS_008", "STS_019")
SARCOMA = {
    "task": "segmentation",
    "kind": "volumes",
    "modalities": ["MRI"],
    "labels": {"background": 0, "tumour": 1},
    "spacing": [2, 2, 4],
    "shape": [32, 32, 16],
    "whole": False,
    "columns": {"case": "case", "patient": "patient", "images": ["image"], "mask": "mask"},
    "licence": "CC BY 3.0",
}

pytestmark = pytest.mark.skipif(not DICOM.is_dir(), reason="the real DICOM series are not here")


def prepared(folder: Path, rows: list[str], **more: object) -> dict[str, PreparedCase]:
    folder.mkdir()
    for name in ("STS_008", "STS_019", "nifti"):
        (folder / name).symlink_to(DICOM / name)
    (folder / "cases.csv").write_text("\n".join(["case,patient,image,mask", *rows]) + "\n")
    description = Description.model_validate(json.loads(json.dumps({**SARCOMA, **more})))
    family = described_family("sarcoma", description)
    return {case.name: prepare_case(family, case) for case in find_cases(folder, description).cases}


def test_series_and_contours_give_the_cases_that_nifti_gives(tmp_path: Path) -> None:
    series = [f"{name},{name},{name}/MR_T1,{name}/RTSTRUCT/RS.dcm" for name in PATIENTS]
    files = [
        f"{name},{name},nifti/{name}_image.nii.gz,nifti/{name}_mask.nii.gz" for name in PATIENTS
    ]
    of_dicom, of_nifti = prepared(tmp_path / "d", series), prepared(tmp_path / "n", files)
    assert sorted(of_dicom) == sorted(of_nifti) == list(PATIENTS)
    for name in PATIENTS:
        ours, theirs = of_dicom[name], of_nifti[name]
        assert ours.whole.shape == theirs.whole.shape
        np.testing.assert_allclose(ours.whole.numpy(), theirs.whole.numpy(), atol=1e-3)
        assert ours.whole_mask is not None
        assert theirs.whole_mask is not None
        assert (ours.whole_mask == theirs.whole_mask).float().mean() > 0.9999
        assert (ours.whole_mask > 0).any()


def test_a_check_counts_labels_of_contours_and_names_what_identifies_patients(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mine"
    rows = [f"{name},{name},{name}/MR_T1,{name}/RTSTRUCT/RS.dcm" for name in PATIENTS]
    rows.append("third,third,nifti/STS_008_image.nii.gz,nifti/STS_008_mask.nii.gz")
    prepared(folder, rows)
    (folder / "dataset.yaml").write_text(yaml.safe_dump(SARCOMA))
    looked = look(folder)
    (said,) = identifiers(looked)
    assert "75 DICOM files" in said
    assert "PatientName (75)" in said
    assert "STS" not in said
    assert "tumour in 3 cases" in facts(looked)[0]
