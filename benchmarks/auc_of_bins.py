"""How far the AUC of bins is off the exact one on scores of real runs, by what the bins are.

``python -m benchmarks.auc_of_bins RUN …`` reads what the sites of finished runs of two classes have
sent of the last round with ``evaluation.share=predictions``. Of their validation and test cases
--cases are drawn --draws times, with the scores as they are and with logits many times as large or
as small, as a model that is surer or hardly trained has them. A cell is in what part of the draws
an AUC is off by more than 0.001, and by how much at most.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from benchmarks.auc_of_statistics import both
from benchmarks.evaluation_shared import sent
from federated.run.folder import RunFolder
from federated.stages.evaluate import read_shared

WANTED = 0.001
SCALES = {"as they are": 1.0, "5 times as sure": 5.0, "20 times as sure": 20.0, "a fiftieth": 0.02}
# The scores between 1,024 bins of which each has its number of scores and nothing else.
SPREAD = np.linspace(-1, 1, 1025)[1:-1]
FORMS = {
    "even in the logit, to 50": expit(50 * SPREAD),
    "even in the logit, to 10": expit(10 * SPREAD),
    "even in its asinh": expit(0.5 * np.sinh(SPREAD * np.arcsinh(100))),
}

Numbers = npt.NDArray[np.float64]


def scores_of(run: Path) -> tuple[npt.NDArray[np.int64], Numbers]:
    """The labels and the logits of class 1 of all sites' validation and test cases, each (n,)."""
    folder = RunFolder(run)
    labels, logits = [], []
    for site in folder.sites():
        for split in read_shared(sent(folder, folder.done_rounds(), site), site).values():
            scores = np.asarray(split["probabilities"], np.float64)
            if scores.shape[1] != 2:
                raise SystemExit(f"The run {run} has {scores.shape[1]} classes, and 2 are wanted.")
            labels.append(np.asarray(split["labels"], np.int64).ravel())
            logits.append(logit(scores[:, 1].clip(1e-12, 1 - 1e-12)))
    return np.concatenate(labels), np.concatenate(logits)


def area(labels: npt.NDArray[np.int64], scores: Numbers, edges: Numbers) -> float:
    """The AUC of bins between ``edges``, where pairs that share one count half."""
    bins = np.searchsorted(edges, scores, side="left")
    negatives, positives = (
        np.bincount(bins[labels == label], minlength=len(edges) + 1).astype(float)
        for label in (0, 1)
    )
    right = positives * (np.cumsum(negatives) - negatives / 2)
    return float(right.sum() / (negatives.sum() * positives.sum()))


def errors(labels: npt.NDArray[np.int64], scores: Numbers) -> list[float]:
    """By how much each form is off: that of statistics, then :data:`FORMS`."""
    told, exact = both(labels, np.stack([1 - scores, scores], axis=1))
    assert told is not None
    assert exact is not None
    found = [told.value, *(area(labels, scores, edges) for edges in FORMS.values())]
    return [abs(each - exact) for each in found]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    print("| run | logits | as sites tell them | " + " | ".join(FORMS) + " |")
    print("| --- " * (3 + len(FORMS)) + "|")
    for run in given.runs:
        labels, logits = scores_of(run.resolve())
        rng = np.random.default_rng(0)
        drawn = [
            rng.choice(len(labels), min(given.cases, len(labels)), replace=False)
            for _ in range(given.draws)
        ]
        for name, scale in SCALES.items():
            off = np.array([errors(labels[i], expit(scale * logits[i])) for i in drawn])
            cells = [
                f"{share:.2f}, {most:.4f}"
                for share, most in zip((off > WANTED).mean(axis=0), off.max(axis=0), strict=True)
            ]
            print(f"| {run} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
