"""Which layers pFL-ResFIM found sensitive to the domain: shares, and their figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from federated.files import atomic_path

# For each site or strategy, the share in [0, 1] of each layer's values that is a site's own.
Shares = Mapping[str, Mapping[str, float]]


def mean_shares(several: Sequence[Shares]) -> dict[str, dict[str, float]]:
    """The mean of the shares over several runs of the same network, for sites that tell in all."""
    first = several[0]
    return {
        site: {layer: float(np.mean([s[site][layer] for s in several])) for layer in layers}
        for site, layers in first.items()
        if all(site in shares for shares in several)
    }


def sensitivity_figure(shares: Shares, path: Path, title: str) -> None:
    """Draw the shares as PNG, with a row for each layer and a column for each site.

    Layers are in order from input to output.
    """
    columns = list(shares)
    layers = list(next(iter(shares.values())))
    values = np.array([[100 * shares[column][layer] for column in columns] for layer in layers])
    size = (2.5 + 0.9 * len(columns) + 2.5, 1.5 + 0.24 * len(layers))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    for row, column in np.ndindex(values.shape):
        shade = "black" if values[row, column] > values.max() / 2 else "white"
        text = f"{values[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
    figure.colorbar(drawn, label="% of the layer's values that stay at the site")
    axes.set_title(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
