"""A folder of kidney CT with one fault of each kind that clinical folders have."""

from pathlib import Path

import nibabel
import numpy as np

from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom


def write_faulty(folder: Path, cases: int = 16) -> None:
    """Cases 0 to 9 and 11 to 13 have a fault each; 10 and those from 14 on are whole."""
    write_phantom(FAMILIES["kidney"], folder, cases, seed=0, shape=(16, 18, 20))

    def change(number, kind, values=None, affine=None):
        path = folder / f"case_{number:05d}" / f"{kind}.nii.gz"
        image = nibabel.load(path)
        array = np.asarray(image.dataobj) if values is None else values
        nibabel.save(nibabel.Nifti1Image(array, image.affine if affine is None else affine), path)

    (folder / "case_00000/segmentation.nii.gz").unlink()
    (folder / "case_00001/imaging.nii.gz").unlink()
    change(2, "segmentation", values=np.ones((16, 18, 19), np.uint8))
    change(3, "segmentation", affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    change(4, "segmentation", values=np.full((16, 18, 20), 7, np.uint8))
    change(5, "segmentation", values=np.zeros((16, 18, 20), np.uint8))
    change(6, "imaging", values=np.zeros((64, 64, 64), np.float32))
    change(6, "segmentation", values=np.ones((64, 64, 64), np.uint8))
    change(7, "imaging", values=np.full((16, 18, 20), 3000, np.float32))
    copied = np.asarray(nibabel.load(folder / "case_00010/imaging.nii.gz").dataobj)
    change(11, "imaging", values=copied)
    path = folder / "case_00008/imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    (folder / "case_00009/imaging.nii.gz").write_text("a note, not an image")
    change(12, "segmentation", values=np.full((16, 18, 20), 0.5, np.float32))
    broken = np.zeros((16, 18, 20), np.float32)
    broken[0] = np.nan
    change(13, "imaging", values=broken)
