"""Kidney, tumour and cyst in contrast-enhanced CT: KiTS23."""

from pathlib import Path

from federated.data.families.family import CaseNames, Family, Found, pair


def find(folder: Path) -> Found:
    """``case_NNNNN/imaging.nii.gz`` and ``case_NNNNN/segmentation.nii.gz``.

    A case's folder that has neither is a stray.
    """
    cases = sorted(path for path in folder.glob("case_*") if path.is_dir())
    images = {c.name: (c / "imaging.nii.gz",) for c in cases if (c / "imaging.nii.gz").is_file()}
    masks = {
        c.name: c / "segmentation.nii.gz" for c in cases if (c / "segmentation.nii.gz").is_file()
    }
    empty = [case for case in cases if case.name not in images and case.name not in masks]
    return pair(images, masks, lambda name: (name, None), empty)


def name_files(number: int) -> CaseNames:
    """``case_NNNNN``."""
    name = f"case_{number:05d}"
    return CaseNames((f"{name}/imaging.nii.gz",), f"{name}/segmentation.nii.gz")


KIDNEY = Family(
    name="kidney",
    dims=3,
    modalities=("CT",),
    channels=1,
    labels=("background", "kidney", "tumour", "cyst"),
    label_values={},
    spacing=(2.0, 2.0, 2.0),
    shape=(96, 96, 96),
    whole=False,
    window=(-79.0, 304.0),
    mirrored=(0,),
    licence="CC BY-NC-SA 4.0",
    source="Heller et al. 2023, The KiTS21 Challenge; kits-challenge.org",
    layout="case_NNNNN/imaging.nii.gz, case_NNNNN/segmentation.nii.gz",
    find=find,
    name_files=name_files,
)
