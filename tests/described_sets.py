"""Small folders of somebody's own data, for tests: pictures or volumes with a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import yaml
from PIL import Image

PICTURES: Mapping[str, Any] = {
    "task": "segmentation",
    "kind": "pictures",
    "labels": {"background": 0, "lesion": 255},
    "shape": [16, 24],
    "whole": True,
    "licence": "CC0",
}
CLASSES: Mapping[str, Any] = {
    "task": "classification",
    "kind": "pictures",
    "labels": {"normal": 0, "ill": 1},
    "shape": [16, 24],
    "columns": {"ignored": ["mask"]},
    "licence": "CC0",
}


def describe(folder: Path, description: Mapping[str, Any]) -> None:
    (folder / "dataset.yaml").write_text(yaml.safe_dump(dict(description), sort_keys=False))


def write_table(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def picture_set(folder: Path, cases: int = 12) -> list[dict[str, str]]:
    """Write grey pictures of two sizes with a bright square, which class 1 has larger, and masks.

    The rows have patient, image, mask, site and label.
    """
    rows = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(cases):
        rng = np.random.default_rng(number)
        shape = (20, 30) if number % 2 else (24, 36)
        image = rng.integers(0, 90, shape, dtype=np.uint8)
        mask = np.zeros(shape, np.uint8)
        label = (number // 2) % 2
        side = 12 if label else 6
        mask[4 : 4 + side, 6 : 6 + side] = 255
        image[mask > 0] += 150
        name = f"case_{number:02d}.png"
        Image.fromarray(image).save(folder / "images" / name)
        Image.fromarray(mask).save(folder / "masks" / name)
        rows.append(
            {
                "patient": f"p{number:02d}",
                "image": f"images/{name}",
                "mask": f"masks/{name}",
                "site": "north" if number % 2 else "south",
                "label": str(label),
            }
        )
    write_table(folder, rows)
    return rows


def volume(path: Path, values: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), path)


# What else a picture of ``picture_set`` may be for: two findings, or the side of its square.
FINDINGS: Mapping[str, Any] = {
    "task": "multilabel",
    "kind": "pictures",
    "shape": [16, 24],
    "columns": {"label": ["large", "dark (1/2)"], "ignored": ["mask", "label"]},
    "licence": "CC0",
}
SIDES: Mapping[str, Any] = {
    "task": "regression",
    "kind": "pictures",
    "shape": [16, 24],
    "target": {"low": 0, "high": 20, "unit": "mm"},
    "columns": {"label": "side", "ignored": ["mask", "label"]},
    "licence": "CC0",
}


def labelled_pictures(
    folder: Path, description: Mapping[str, Any], cases: int = 12
) -> list[dict[str, str]]:
    """Pictures with a description, and a table with the columns that it learns.

    ``large`` is the label of ``picture_set`` and ``dark`` an independent one, for which the picture
    is darkened; ``side`` is the side of the square in mm.
    """
    rows = picture_set(folder, cases)
    for number, row in enumerate(rows):
        dark = number % 3 == 0
        if description["task"] == "multilabel":
            row |= {"large": row["label"], "dark (1/2)": str(int(dark))}
            path = folder / row["image"]
            image = np.asarray(Image.open(path))
            Image.fromarray(255 - image if dark else image).save(path)
        else:
            row["side"] = f"{12 if row['label'] == '1' else 6}.{number % 10}"
    write_table(folder, rows)
    describe(folder, description)
    return rows
