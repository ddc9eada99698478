"""Hippocampus: T1-weighted MRI crops with two labels, Medical Segmentation Decathlon Task04."""

from pathlib import Path

from federated.data.folders.families.base import CaseNames, Family, Listing, Source, pair
from federated.data.folders.families.file_names import VOLUMES, entries, named

# Of the 200 labelled volumes at hand (31 to 43, 40 to 59, 24 to 47 voxels) some are larger, but in
# none does a label reach out of the middle of this size; a larger one takes half as long again.
SHAPE = (40, 56, 40)


def find(folder: Path) -> Listing:
    """The cases ``images/NAME.nii.gz`` and ``labels/NAME.nii.gz``; each name is another patient.

    ``dataset.json`` of the Decathlon may lie beside them.

    Raises:
        ConsiliumError: as :func:`pair`.
    """
    images = named(entries(folder / "images"), VOLUMES)
    masks = named(entries(folder / "labels"), VOLUMES)
    return pair(folder, [images], masks, Source, beside=("dataset.json",))


def name_files(number: int) -> CaseNames:
    """The files of the case ``hippocampus_NNN``."""
    name = f"hippocampus_{number:03d}.nii.gz"
    return CaseNames((f"images/{name}",), f"labels/{name}")


HIPPOCAMPUS = Family(
    name="hippocampus",
    dims=3,
    modalities=("MRI",),
    channels=1,
    labels=("background", "anterior", "posterior"),
    label_values={},
    spacing=(1.0, 1.0, 1.0),
    shape=SHAPE,
    whole=True,
    window=None,
    mirrored=(0,),
    licence="CC BY-SA 4.0",
    source="Antonelli et al. 2022, The Medical Segmentation Decathlon",
    layout="images/hippocampus_NNN.nii.gz, labels/hippocampus_NNN.nii.gz",
    find=find,
    name_files=name_files,
)
