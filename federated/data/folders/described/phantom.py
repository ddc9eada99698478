"""Generated folders of a described set's form, with a table, where its files are not at hand."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image

from federated.data.dataset import SPLITS, LocatedFile, Split
from federated.data.folders.dataset import PHANTOM_CASES, folder_md5
from federated.data.folders.described.family import described_family
from federated.data.folders.described.labelled import labelled_info
from federated.data.folders.described.table_roles import CASES, image_columns
from federated.data.folders.families import Family
from federated.data.folders.phantom import write_phantom
from federated.data.medmnist.phantom import generate
from federated.files import locked, require_writable, write_text
from federated.settings.description import LABEL, Description

# Cases are said to come from these by turns.
SITES = ("east", "west")
# The sides of generated images that are classified; they are resized as real ones are.
SIDE = 32
LABELLED: Mapping[Split, int] = {"train": 84, "val": 12, "test": 24}


def as_table(description: Description) -> Description:
    """The description of a generated folder, whatever the real files' layout and columns are."""
    columns = description.names_of_outputs()
    return description.model_copy(
        update={
            **{"layout": "table", "folder": None, "columns": columns, "colours": None},
            # Numbers that were derived from real images say nothing of generated ones.
            "features": None,
        }
    )


def materialise_described(
    name: str, description: Description, seed: int, root: Path
) -> LocatedFile:
    """A generated folder of a described set's form, which is made once for each description.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    plain = as_table(description)
    family = described_family(name, plain)
    folder = root / "phantom" / f"{name}-{seed}-{plain.digest}"
    require_writable(folder.parent, "below data.root, for generated images")
    with locked(folder.parent / f".{folder.name}.lock"):
        if not folder.is_dir():
            part = folder.parent / f".{folder.name}.part"
            if description.segments:
                _write_segmented(family, image_columns(plain), part, seed)
            else:
                _write_labelled(family, plain, part, seed)
            part.rename(folder)
    return LocatedFile(folder, "phantom", folder_md5(folder))


def _write_segmented(family: Family, columns: Sequence[str], folder: Path, seed: int) -> None:
    write_phantom(family, folder, PHANTOM_CASES, seed)
    rows = []
    for number in range(PHANTOM_CASES):
        files = family.name_files(number)
        rows.append([*files.images, files.mask, SITES[number % len(SITES)]])
    _write_table(folder, [*columns, "mask", "site"], rows)


def _write_labelled(family: Family, description: Description, folder: Path, seed: int) -> None:
    colours = 3 if family.dims == 2 else 1
    info = replace(labelled_info(family, description, LABELLED), channels=colours)
    arrays = generate(info, SIDE, seed)
    rows, number = [], 0
    for split in SPLITS:
        for image, label in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True):
            names = family.name_files(number).images
            for name in names:
                _write_image(folder / name, image)
            rows.append([*names, *_cells(description, label), split, SITES[number % len(SITES)]])
            number += 1
    labels = description.columns.labels or (LABEL,)
    _write_table(folder, [*image_columns(description), *labels, "split", "site"], rows)


def _cells(description: Description, label: npt.NDArray[Any]) -> list[str]:
    """A case's cells in the columns of labels."""
    if description.task == "classification":
        return [str(description.values(description.classes[int(label[0])])[0])]
    return [f"{value:g}" for value in label.tolist()]


def _write_image(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".png"):
        Image.fromarray(image).save(path)
    else:
        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), path)


def _write_table(folder: Path, header: list[str], rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(folder / CASES, text.getvalue())
