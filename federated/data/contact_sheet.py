"""Thumbnails of a data set on one picture: some cases of each site, with what is known of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from federated.data.dataset import SPLITS, Dataset, Split
from federated.data.folders.dataset import FolderDataset
from federated.data.folders.prepared_case import prepare_case
from federated.data.labelling import LABELLINGS
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.errors import ConsiliumError

CASES_OF_A_SITE = 8
SIDE, TITLE = 128, 26
# What is labelled is drawn in this colour, over the image.
MARKED = (255, 96, 0)


@dataclass(frozen=True)
class Thumbnail:
    """A grey or colour picture ``(height, width, 3)`` of a case, and two lines below it."""

    pixels: npt.NDArray[np.uint8]
    title: str
    below: str


def contact_sheet(dataset: AnyDataset, partition: Partition) -> bytes:
    """A PNG with a row for each site: its first cases, a middle or the most labelled slice of each.

    Labelled voxels are tinted; below a case stand its name and its class or split. A case that
    cannot be shown says so.
    """
    rows = [[*_of_site(dataset, partition, site)] for site in partition.sites]
    widest = max((len(row) for row in rows), default=0)
    sheet = Image.new("RGB", (max(1, widest) * SIDE, max(1, len(rows)) * (SIDE + TITLE)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for place, thumbnail in enumerate(row):
            at = (place * SIDE, number * (SIDE + TITLE))
            picture = Image.fromarray(thumbnail.pixels)
            picture.thumbnail((SIDE, SIDE))
            sheet.paste(picture, at)
            draw.text((at[0] + 1, at[1] + SIDE), thumbnail.title[:22], fill="black")
            draw.text((at[0] + 1, at[1] + SIDE + 12), thumbnail.below[:22], fill="grey")
    content = BytesIO()
    sheet.save(content, format="PNG")
    return content.getvalue()


def _of_site(dataset: AnyDataset, partition: Partition, site: str) -> Iterator[Thumbnail]:
    places = [(split, index) for split in SPLITS for index in partition.sites[site][split]]
    # Evenly over the site, so that all splits are seen.
    for split, index in places[:: max(1, len(places) // CASES_OF_A_SITE)][:CASES_OF_A_SITE]:
        if isinstance(dataset, Dataset):
            yield _of_image(dataset, split, index, site)
        else:
            yield _of_case(dataset, split, index, site)


def _of_image(dataset: Dataset, split: Split, index: int, site: str) -> Thumbnail:
    image = dataset.images[split][index].astype(np.float64) / 255
    label = dataset.labels[split][index]
    said = LABELLINGS[dataset.info.task].of_case(label, dataset.info)
    name = dataset.origins[split][index].name if dataset.origins else f"{split} {index}"
    return Thumbnail(
        _pixels(_slice(image, None), None), name, f"{site.removeprefix('site-')}: {said}"
    )


def _of_case(dataset: FolderDataset, split: Split, index: int, site: str) -> Thumbnail:
    case = dataset.cases[split][index]
    below = f"{site.removeprefix('site-')}: {split}"
    try:
        prepared = prepare_case(dataset.family, case)
    except ConsiliumError:
        return Thumbnail(np.full((SIDE, SIDE, 3), 200, np.uint8), case.name, "cannot be prepared")
    image = prepared.whole.numpy()
    mask = None if prepared.whole_mask is None else prepared.whole_mask.numpy()
    level = None
    if image.ndim == 4:
        level = image.shape[-1] // 2
        if mask is not None and mask.any():
            level = int((mask > 0).sum(axis=(0, 1)).argmax())
    shown = None if mask is None else mask if level is None else mask[..., level].T[::-1]
    return Thumbnail(_pixels(_slice(image, level), shown), case.name, below)


def _slice(image: npt.NDArray[Any], level: int | None) -> npt.NDArray[Any]:
    """A picture ``(height, width, channels)`` of an image ``(channels, *spatial)``."""
    if image.ndim == 4:
        level = image.shape[-1] // 2 if level is None else level
        image = np.moveaxis(image[..., level], 1, 2)[:, ::-1]
    return np.moveaxis(image, 0, -1)


def _pixels(picture: npt.NDArray[Any], mask: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8]:
    channels = picture if picture.shape[-1] == 3 else picture[..., :1].repeat(3, axis=-1)
    low, high = np.percentile(channels, (0.5, 99.5))
    grey = ((channels - low) / max(high - low, 1e-6)).clip(0, 1) * 255
    if mask is not None:
        inside = mask > 0
        grey[inside] = 0.6 * grey[inside] + 0.4 * np.array(MARKED)
    return np.asarray(grey, np.uint8)


def sites_of(cases: Sequence[Any]) -> list[str]:
    """The sites that cases or origins name, in order; none where one of them does not say."""
    named = {case.site for case in cases}
    return [] if None in named or "" in named else sorted(named)
