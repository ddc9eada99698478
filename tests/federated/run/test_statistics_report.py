"""The page of statistics says what its numbers are of, and how exact they are."""

import numpy as np

from federated.data.folders.volume import Volume
from federated.planning.fingerprint import Scheme, fingerprint_of
from federated.run.statistics_report import Statistics, page_of


def page(dims: int) -> str:
    scheme = Scheme(dims=dims, modalities=1, classes=1, voxelwise=False, spaced=False)
    sides = (16, 16) if dims == 2 else (4, 8, 8)
    values = np.arange(256, dtype=np.uint8).reshape(1, *sides)
    found = fingerprint_of(scheme, [Volume(values, None)], np.array([0]))
    told = Statistics(
        *("made", "files", "plain", "clear", None, 1e-5, 0, found, ["ill"], ["image"]),
        cases={"site-00": 1},
        absent={},
        distances={"site-00": None},
    )
    return page_of(told.to_json())


def test_pictures_have_pixels_and_volumes_voxels() -> None:
    assert "| pixels, height | 16 |" in page(2)
    assert "voxels, height" not in page(2)
    assert "| voxels, " in page(3)


def test_how_exact_numbers_are_stands_below_them() -> None:
    text = page(2)
    assert "Whole intensities from -255 to 255" in text
    assert text.index("| intensity, image |") < text.index("How exact these are:")
