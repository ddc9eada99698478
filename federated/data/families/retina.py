"""Retinal vessels: fundus photographs of two scanners, DRIVE and CHASE_DB1."""

from pathlib import Path

from federated.data.families.family import CaseNames, Family, Found, by_stem, pair

DRIVE, CHASE = "drive", "chasedb1"


def find(folder: Path) -> Found:
    """``drive/images`` with ``drive/1st_manual``, and ``chasedb1/Image_NNL.jpg`` beside its mask.

    The two eyes of a CHASE_DB1 patient are one patient; each data set is a site.
    """
    drive_masks = by_stem(folder / DRIVE / "1st_manual", ["*_manual1.gif"], "_manual1")
    chase_masks = by_stem(folder / CHASE, ["*_1stHO.png"], "_1stHO")
    images = {
        f"{DRIVE}-{name.split('_')[0]}": (path,)
        for name, path in by_stem(folder / DRIVE / "images", ["*.tif", "*.png"]).items()
    } | {
        f"{CHASE}-{name}": (path,)
        for name, path in by_stem(folder / CHASE, ["Image_*.jpg"]).items()
    }
    masks = {f"{DRIVE}-{name}": path for name, path in drive_masks.items()}
    masks |= {f"{CHASE}-{name}": path for name, path in chase_masks.items()}
    return pair(images, masks, lambda name: (name.rstrip("LR"), name.split("-")[0]))


def name_files(number: int) -> CaseNames:
    """By turns a photograph of DRIVE and one of CHASE_DB1, of which two are of one patient."""
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
