"""Skin lesions: dermoscopy images, HAM10000 with its masks or an ISIC segmentation set."""

from pathlib import Path

from federated.data.folders.families.base import CaseNames, Family, Listing, Source, pair
from federated.data.folders.families.file_names import PICTURES, entries, named
from federated.data.folders.families.side_table import SideTable, read_side_table

METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata")
# The tables that come with HAM10000 and ISIC.
BESIDE = ("ham10000_metadata*", "*.csv")


def find(folder: Path) -> Listing:
    """The cases ``images/NAME.jpg`` and ``masks/NAME_segmentation.png``.

    Where HAM10000's metadata lie beside them, images of one lesion stay together, and the site is
    the source that the column ``dataset`` names.

    Raises:
        ConsiliumError: as :func:`pair`, or the metadata cannot be used.
    """
    images = named(entries(folder / "images"), PICTURES)
    masks = named(entries(folder / "masks"), PICTURES, end="_segmentation")
    path = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        return pair(folder, [images], masks, Source, BESIDE)
    table = read_side_table(
        path, images, key="image_id", needed=("lesion_id",), optional=("dataset",)
    )
    return pair(folder, [images], masks, lambda name: _source(table, name), BESIDE)


def _source(table: SideTable, name: str) -> Source:
    """The lesion and the source of an image, as the metadata have them."""
    row = table.get(name, {})
    return Source(row.get("lesion_id") or None, row.get("dataset") or None)


def name_files(number: int) -> CaseNames:
    """The files of the case ``ISIC_NNNNNNN``."""
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
