"""Retinal vessels: fundus photographs of two scanners, DRIVE and CHASE_DB1."""

from collections.abc import Sequence
from pathlib import Path

from federated.data.folders.families.base import CaseNames, Family, Listing, Source, pair
from federated.data.folders.families.file_names import PICTURES, Named, entries, named

DRIVE, CHASE = "drive", "chasedb1"
# The half of DRIVE that a photograph belongs to; its number differs between them.
HALVES = ("_training", "_test")
# What may lie beside the cases: DRIVE's fields of view and second observer, and CHASE_DB1's second
# observer.
BESIDE = ("drive/mask", "drive/2nd_manual", "chasedb1/image_*_2ndho.png", "chasedb1/*.docx")


def find(folder: Path) -> Listing:
    """The cases of ``drive/images`` with ``drive/1st_manual``, and ``chasedb1/Image_NNL.jpg``.

    The masks of CHASE_DB1 lie beside its photographs. The two eyes of a CHASE_DB1 patient are one
    patient; each data set is a site. The masks of a second observer and of the field of view may
    lie beside them.

    Raises:
        ConsiliumError: as :func:`pair`.
    """
    drive, chase = entries(folder / DRIVE / "images"), entries(folder / CHASE)
    photographs: dict[str, list[Path]] = {}
    for path in drive:
        for name, files in named([path], PICTURES).items():
            number = next((name.removesuffix(h) for h in HALVES if name.endswith(h)), name)
            photographs.setdefault(number, []).extend(files)
    masks = named(entries(folder / DRIVE / "1st_manual"), PICTURES, end="_manual1")
    # As in a mask's name, an underscore ends the number.
    eyes = {
        f"Image_{name}": files
        for name, files in named(chase, PICTURES, start="Image_").items()
        if "_" not in name
    }
    eye_masks = {
        f"Image_{name}": files
        for name, files in named(chase, PICTURES, start="Image_", end="_1stHO").items()
    }
    return pair(
        folder,
        [_of(DRIVE, photographs) | _of(CHASE, eyes)],
        _of(DRIVE, masks) | _of(CHASE, eye_masks),
        _source,
        BESIDE,
    )


def _of(data_set: str, files: Named) -> dict[str, Sequence[Path]]:
    """The names of one data set's files as those of the family."""
    return {f"{data_set}-{name}": paths for name, paths in files.items()}


def _source(name: str) -> Source:
    """The data set as the site; for ``chasedb1-Image_01L`` the patient ``chasedb1-Image_01``."""
    data_set = name.split("-")[0]
    both_eyes = data_set == CHASE and name[-1] in "LRlr"
    return Source(name[:-1] if both_eyes else name, data_set)


def name_files(number: int) -> CaseNames:
    """The files of a photograph of DRIVE or of CHASE_DB1 by turns.

    Of CHASE_DB1 two photographs are of one patient.
    """
    half = number // 2
    if number % 2:
        name = f"{CHASE}/Image_{half // 2 + 1:02d}{'LR'[half % 2]}"
        return CaseNames((f"{name}.jpg",), f"{name}_1stHO.png")
    name = f"{half + 21}"
    return CaseNames(
        (f"{DRIVE}/images/{name}_training.tif",), f"{DRIVE}/1st_manual/{name}_manual1.gif"
    )


RETINA = Family(
    name="retina",
    dims=2,
    modalities=("fundus photograph",),
    channels=3,
    labels=("background", "vessel"),
    label_values={255: 1},
    spacing=None,
    shape=(96, 96),
    whole=False,
    window=None,
    mirrored=(0, 1),
    licence="DRIVE: research use; CHASE_DB1: CC BY 4.0",
    source="Staal et al. 2004 (DRIVE); Fraz et al. 2012 (CHASE_DB1)",
    layout="drive/images/NN_training.tif, drive/1st_manual/NN_manual1.gif, "
    "chasedb1/Image_NNL.jpg, chasedb1/Image_NNL_1stHO.png",
    find=find,
    name_files=name_files,
)
