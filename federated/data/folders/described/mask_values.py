"""What a sample of masks and images holds: values that may be labels, and a window for CT."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from federated.data.folders.nifti_file import is_nifti
from federated.data.folders.read_volume import read_mask, read_volume
from federated.settings.description import MOST_LABEL

# So many files are opened.
SAMPLE = 20
# Only CT has air at -1000; MRI and PET have nothing so far below 0.
AIR = -500
PERCENTILES = (0.5, 99.5)
Item = TypeVar("Item")


def mask_labels(masks: Sequence[Path]) -> tuple[dict[str, int], str]:
    """Names for the values of a sample of masks, and what is unsure of them.

    Raises:
        ConsiliumError: a mask cannot be read.
    """
    values = {0}
    sample = spread(masks)
    for path in sample:
        values |= {int(value) for value in np.unique(read_mask(path).values)}
    usable = sorted(value for value in values if 0 <= value <= MOST_LABEL)
    many = len(usable) > 2
    names = {
        value: "background" if value == 0 else f"label-{value}" if many else "foreground"
        for value in usable
    }
    if len(usable) < 2:
        names[1] = "foreground"
    odd = len(values) - len(usable)
    return (
        {name: value for value, name in names.items()},
        f"the values {', '.join(map(str, sorted(values)))} were seen in {len(sample)} of "
        f"{len(masks)} masks; give them their names under labels"
        + (f" ({odd} of them cannot be labels)" if odd else ""),
    )


def ct_window(pairs: Sequence[tuple[Path, Path | None]]) -> tuple[list[float] | None, str]:
    """A window for CT from the labelled voxels, or all above air; ``None`` for other images.

    They are the 0.5th and the 99.5th percentile, as nnU-Net takes them (Isensee et al. 2021).

    Raises:
        ConsiliumError: a file cannot be read.
    """
    sample = [pair for pair in spread(pairs) if is_nifti(pair[0])]
    parts = []
    for image, mask in sample:
        values = read_volume(image).values
        if values.min() > AIR:
            return None, ""
        inside = read_mask(mask).values != 0 if mask is not None else values > AIR
        if inside.shape == values.shape and inside.any():
            parts.append(some_of(values, inside))
    if not parts:
        return None, ""
    window = window_of(parts)
    return window, (
        f"values below {AIR} look like Hounsfield units, so this is taken for CT; the window "
        f"{window} holds 99 % of the labelled voxels of {len(sample)} cases"
    )


def some_of(values: npt.NDArray[Any], inside: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """The values inside of something, or about ten thousand of them, evenly over all."""
    found: npt.NDArray[Any] = values[inside]
    return found[:: max(1, len(found) // 10_000)]


def window_of(parts: Sequence[npt.NDArray[Any]]) -> list[float]:
    """The window that holds 99 % of these values, in whole Hounsfield units."""
    low, high = np.percentile(np.concatenate(parts), PERCENTILES)
    return [float(np.floor(low)), float(np.ceil(max(high, low + 1)))]


def spread(items: Sequence[Item]) -> list[Item]:
    """At most :data:`SAMPLE` items, evenly over all."""
    step = max(1, len(items) // SAMPLE)
    return list(items[::step])[:SAMPLE]
