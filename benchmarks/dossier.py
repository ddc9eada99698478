"""Ten real cases predicted by each file of a dossier: do ONNX and the bundle give torch's masks?

``python -m benchmarks.dossier DIR FAMILY --data data`` prints a row for each file. Dice is the
least of all cases and labels, between a file's mask and torch's, each on the case's own grid.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from monai.bundle import load
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from federated.data.folders.prepared_case import prepare_case
from federated.inference.model_input import segmented
from federated.release.exported import onnx_session
from federated.weights.model_file import load_model, read_header

Mask = npt.NDArray[np.uint8]


class By(nn.Module):
    """Any function of images as a network."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """The outputs of images."""
        return self._run(images)


def dice(one: Mask, other: Mask, labels: int) -> float:
    """The least Dice of the labels that either mask has; 1 where neither has any."""
    pairs = [(one == label, other == label) for label in range(1, labels)]
    found = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs if a.any() or b.any()]
    return float(min(found, default=1.0))


def main() -> None:
    """Predict, and print a row for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dossier", type=Path)
    parser.add_argument("family", help="The folder below --data.")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--cases", type=int, default=10)
    given = parser.parse_args()
    weights = given.dossier / "model.safetensors"
    network, family = load_model(weights), read_header(weights).family()
    assert family is not None, "the dossier is not of a model that segments"
    told = {"bundle_dir": str(given.dossier), "device": "cpu"}
    traced, _, _ = load("bundle", load_ts_module=True, **told)
    forms = {
        "model.onnx": By(onnx_session((given.dossier / "model.onnx").read_bytes())),
        "bundle": load("bundle", workflow_type="inference", **told),
        "bundle/models/model.ts": By(traced),
    }
    rows = {name: [0.0, 1.0, 0] for name in forms}
    truth = []
    for files in family.find(given.data / given.family).cases[-given.cases :]:
        case = prepare_case(family, files)
        wanted = segmented(network, family, case)
        mask, labels = case.to_own_grid(wanted), len(family.labels)
        assert case.truth is not None
        truth.append(dice(mask, case.truth, labels))
        for name, form in forms.items():
            found = segmented(form, family, case)
            other = case.to_own_grid(found)
            row = rows[name]
            row[0] = max(row[0], float((found - wanted).abs().max()))
            row[1] = min(row[1], dice(mask, other, labels))
            row[2] += int((mask != other).sum())
    table = Table("file", "largest difference", "least Dice with torch's", "voxels that differ")
    for name, (difference, least, voxels) in rows.items():
        table.add_row(name, f"{difference:.1e}", f"{least:.6f}", str(voxels))
    Console().print(table, f"least Dice with the true masks, mean over cases: {np.mean(truth):.3f}")


if __name__ == "__main__":
    main()
