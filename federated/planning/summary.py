"""What is told of all sites' cases together: quantiles, shares and histograms, as plain values."""

from collections.abc import Sequence
from math import ceil, floor, isnan
from typing import Any

import numpy as np

from federated.planning.attributes import ATTRIBUTE_BINS
from federated.planning.bins import Counts, Floats
from federated.planning.fingerprint import INTENSITIES, Fingerprint, Kind
from federated.planning.suppression import Hidden, hidden_cells, hidden_classes

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PERCENTILES = (0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995)
# The most bars of a histogram of intensities, between its outer percentiles.
BARS = 32
AXES = {3: ("right", "anterior", "superior"), 2: ("height", "width")}


def summary_of(
    found: Fingerprint, classes: Sequence[str], modalities: Sequence[str], least: int = 0
) -> dict[str, Any]:
    """A summary of the cases of all sites.

    Args:
        found: what was counted.
        classes: the names of the classes, in order.
        modalities: the names of the images of a case.
        least: numbers of fewer cases, and quantiles that lie outside of all but fewer, are
            ``None``; 0 tells all.
    """
    scheme, cases = found.scheme, found.cases
    axes = AXES[scheme.dims]
    summary: dict[str, Any] = {"cases": cases, "classes": _classes(found, classes, least)}
    named: tuple[tuple[str, Kind], ...] = (
        ("spacing_mm", "spacing"),
        ("field_of_view_mm", "reach"),
        ("shape", "size"),
    )
    for name, kind in named:
        if kind in found.counts:
            summary[name] = {
                axis: _quantiles(found, kind, row, least) for row, axis in enumerate(axes)
            }
    summary["intensities"] = {
        modality: _intensities(found, row, least) for row, modality in enumerate(modalities)
    }
    if scheme.voxelwise:
        summary["part_of_voxels"] = {
            classes[row + 1]: _quantiles(found, "share", row, least)
            for row in range(scheme.classes - 1)
        }
    for name in scheme.attributes:
        hidden = _hidden_row(found.counts[name], cases, least)
        summary[name] = _told(ATTRIBUTE_BINS[name], found.counts[name], hidden)
    return summary


def _hidden_row(row: Counts, cases: int, least: int) -> Hidden:
    """Which cells of a row are not told, that would add up to all cases had no site withheld any.

    Where each site has withheld the whole row, its zeros are no counts.
    """
    if least and cases and not row.any():
        return np.full(len(row), True)
    return hidden_cells(row, least)


def _classes(found: Fingerprint, classes: Sequence[str], least: int) -> dict[str, int | None]:
    counts, scheme = found.counts["with_class"], found.scheme
    together = scheme.voxelwise or scheme.several
    hidden = (
        hidden_classes(counts, found.cases, least)
        if together
        else _hidden_row(counts, found.cases, least)
    )
    return _told(classes, counts, hidden)


def _told(names: Sequence[str], counts: Counts, hidden: Hidden) -> dict[str, int | None]:
    triples = zip(names, counts.tolist(), hidden.tolist(), strict=False)
    return {name: None if secret else count for name, count, secret in triples}


def _quantiles(found: Fingerprint, kind: Kind, row: int, least: int) -> dict[str, float | None]:
    total = int(found.counts[kind][row].sum())
    result: dict[str, float | None] = {}
    for share in QUANTILES:
        inside = min(floor(share * (total - 1)), total - 1 - ceil(share * (total - 1)))
        value = found.quantile(kind, share, row) if total and inside + 1 >= least else None
        result[f"{share:g}"] = value
    return result


def _intensities(found: Fingerprint, row: int, least: int) -> dict[str, Any]:
    counts = found.counts["intensity"][row]
    if not counts.sum() or found.cases < least:
        return {"percentiles": None, "mean": None, "deviation": None, "histogram": None}
    mean, deviation = found.mean_and_deviation(row)
    percentiles = {f"{s:g}": found.quantile("intensity", s, row) for s in PERCENTILES}
    edges = _edges(counts, percentiles["0.005"], percentiles["0.995"])
    bars = np.zeros(max(1, len(edges) - 1), np.int64)
    places = np.clip(np.searchsorted(edges, INTENSITIES.values, side="right") - 1, 0, len(bars) - 1)
    np.add.at(bars, places, counts)
    assert not isnan(mean)
    return {
        "percentiles": percentiles,
        "mean": mean,
        "deviation": deviation,
        "histogram": {"edges": edges.tolist(), "share": (bars / bars.sum()).tolist()},
    }


def _edges(counts: Counts, low: float, high: float) -> Floats:
    """The edges of the bars from ``low`` to ``high``; one of them where both are the same.

    Of whole numbers, as pixels have, each bar holds as many: 0 to 255 are 256 values, and edges at
    0 and at 255 would give the bars seven or eight of them in turn.
    """
    if low >= high:
        return np.array([low])
    found = INTENSITIES.values[counts > 0]
    if (found % 1).any():
        return np.linspace(low, high, BARS + 1)
    first = floor(low)
    each = ceil((ceil(high) - first + 1) / BARS)
    edges: Floats = np.arange(first, ceil(high) + each, each).astype(np.float64) - 0.5
    return edges
