"""How far the AUC of additive statistics is from the exact one, over shapes of scores.

``python -m benchmarks.auc_of_statistics`` prints a table: a row for each number of cases, with the
largest error over ``--seeds`` draws of each shape. No model and no data are needed: the labels and
scores are drawn.
"""

import argparse
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from federated.data.dataset import Labels
from federated.learning.classification_metrics import auc
from federated.learning.score_histogram import Area, macro_area, score_histograms, score_steps

Scores = npt.NDArray[np.float64]

# By shape, offset and slope: the score of a case is expit(offset + slope · x), where x is drawn
# from a normal distribution of standard deviation 1 about 0.6 if it is positive, about -0.6 if not.
BALANCED: Mapping[str, tuple[float, float]] = {
    "useful": (0.0, 1.0),
    "one class is rare": (-1.3, 0.3),
    "sure": (0.0, 12.0),
    "saturated at 0": (-14.0, 3.0),
    "saturated at 1": (14.0, 3.0),
    "uncalibrated": (-2.0, 3.0),
    "the wrong way round": (0.0, -1.0),
    # To two decimals.
    "rounded": (0.0, 1.0),
    # These two are drawn uniformly: whatever the label, and in a range for each.
    "uniform": (0.0, 0.0),
    "perfect": (0.0, 0.0),
}
HARDLY_TRAINED: Mapping[str, tuple[float, float]] = {
    "hardly trained": (-1.3, 0.07),
    "hardly trained, of many classes": (-2.4, 0.06),
    "not trained": (0.3, 0.03),
}
RARE: Mapping[str, tuple[float, float]] = {
    "1 in 50": (-4.0, 1.0),
    "1 in 50, sure": (-8.0, 3.0),
    "1 in 50, hardly trained": (-4.0, 0.3),
}
SHAPES = {**BALANCED, **HARDLY_TRAINED, **RARE}
GROUPS = {
    "1 in 4 positive": BALANCED,
    "1 in 4, hardly trained": HARDLY_TRAINED,
    "1 in 50 positive": RARE,
}
CASES = (10, 30, 100, 300, 1000, 2000)


def drawn(name: str, cases: int, seed: int) -> tuple[Labels, Scores]:
    """Labels, and scores of class 1, of one of :data:`SHAPES`; both classes are there."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(cases) < (0.02 if name in RARE else 0.25)).astype(np.int64)
    labels[:2] = 0, 1
    logits = rng.normal(size=cases) + 1.2 * (labels - 0.5)
    random = rng.random(cases)
    if name == "uniform":
        return labels, random
    if name == "perfect":
        return labels, 0.1 + 0.8 * labels + 0.05 * random
    offset, slope = SHAPES[name]
    scores = expit(offset + slope * logits)
    return labels, np.round(scores, 2) if name == "rounded" else scores


def both(labels: Labels, probabilities: Scores) -> tuple[Area | None, float | None]:
    """The AUC of the statistics of cases, and the exact one; probabilities are ``(n, classes)``."""
    positive = (labels[:, None] == np.arange(probabilities.shape[1])).astype(np.int64)
    told = macro_area(*score_histograms(score_steps(probabilities), positive))
    return told, auc(labels, probabilities)


def largest_error(name: str, cases: int, seeds: int) -> tuple[float, float]:
    """The largest error of a shape over draws, and the largest half width of the bounds."""
    errors, widths = [], []
    for seed in range(seeds):
        labels, scores = drawn(name, cases, seed)
        told, exact = both(labels, np.stack([1 - scores, scores], axis=1))
        assert told is not None
        assert exact is not None
        errors.append(abs(told.value - exact))
        widths.append((told.high - told.low) / 2)
    return max(errors), max(widths)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    seeds = parser.parse_args().seeds
    print("| cases | " + " | ".join(f"{name} | its shape" for name in GROUPS) + " |")
    print("| --- " * (1 + 2 * len(GROUPS)) + "|")
    for cases in CASES:
        cells = [f"{cases}"]
        for shapes in GROUPS.values():
            worst = {name: largest_error(name, cases, seeds)[0] for name in shapes}
            name = max(worst, key=lambda each: worst[each])
            cells += [f"{worst[name]:.5f}", name]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
