"""Skin lesions: dermoscopy images, HAM10000 with its masks or an ISIC segmentation set."""

import csv
from pathlib import Path

from federated.data.families.family import CaseNames, Family, Found, by_stem, pair

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata")


def find(folder: Path) -> Found:
    """``images/NAME.jpg`` and ``masks/NAME_segmentation.png``.

    Where HAM10000's metadata lie beside them, images of one lesion stay together, and the source
    that its column ``dataset`` names is the site.
    """
    known = _metadata(folder)
    images = by_stem(folder / "images", ["*.jpg", "*.png"])
    masks = by_stem(folder / "masks", ["*.png"], "_segmentation")
    return pair(
        {n: (p,) for n, p in images.items()}, masks, lambda name: known.get(name, (name, None))
    )


def _metadata(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Lesion and source of each image."""
    path = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["image_id"]: (row["lesion_id"], row.get("dataset") or None)
            for row in csv.DictReader(file)
        }


def name_files(number: int) -> CaseNames:
    """``ISIC_NNNNNNN``."""
    name = f"ISIC_{number:07d}"
    return CaseNames((f"images/{name}.jpg",), f"masks/{name}_segmentation.png")


SKIN = Family(
    name="skin",
    dims=2,
    modalities=("dermoscopy",),
    channels=3,
    labels=("background", "lesion"),
    label_values={255: 1},
    spacing=None,
    shape=(192, 256),
    whole=True,
    window=None,
    mirrored=(0, 1),
    licence="CC BY-NC 4.0",
    source="Tschandl et al. 2018 (HAM10000); Codella et al. 2019 (ISIC 2018)",
    layout="images/ISIC_NNNNNNN.jpg, masks/ISIC_NNNNNNN_segmentation.png, "
    "HAM10000_metadata.csv if at hand",
    find=find,
    name_files=name_files,
)
