"""Kidney, tumour and cyst in contrast-enhanced CT: KiTS23."""

from pathlib import Path

from federated.data.folders.families.base import CaseNames, Family, Listing, Source, pair
from federated.data.folders.families.file_names import VOLUMES, entries, named, same_text

# What may lie beside the cases: the challenge's table of patients, and in a case each annotator's
# own masks.
BESIDE = ("*.json", "*.csv", "case_*/instances")


def find(folder: Path) -> Listing:
    """The cases ``case_NNNNN/imaging.nii.gz`` and ``case_NNNNN/segmentation.nii.gz``.

    A case's folder that has neither is unmatched. The challenge's tables may lie beside the cases,
    and ``instances`` in a case.

    Raises:
        ConsiliumError: as :func:`pair`.
    """
    images: dict[str, list[Path]] = {}
    masks: dict[str, list[Path]] = {}
    for case in entries(folder):
        if case.name.startswith("case_") and case.is_dir():
            files = named(entries(case), VOLUMES)
            for kind, found in (("imaging", images), ("segmentation", masks)):
                if kind in files:
                    found.setdefault(same_text(case.name), []).extend(files[kind])
    return pair(folder, [images], masks, Source, BESIDE)


def name_files(number: int) -> CaseNames:
    """The files of the case ``case_NNNNN``."""
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
