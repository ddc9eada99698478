"""How often a finished run's prediction sets hold the true class, at each site.

    python -m benchmarks.conformal_coverage runs/vessel/latest --redraws 1000

The first table is the run's own: thresholds of each site's validation cases, coverage on its test
cases. It is one draw. What is guaranteed is the mean over draws; so the second deals each site's
validation and test cases anew, as many to each, and has the mean coverage over ``--redraws`` of
them, by the very bins and ranks of a run. The network stays as it is: it was trained on neither.
Beside each stands what exchangeability alone gives: the mean, and in which share of draws one is
within two points of what was asked for.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import betabinom

from federated.calibration.conformal import rank, threshold_bin
from federated.configuration.cases import experiment_cases
from federated.data.load import load
from federated.data.partitioning import partition_dataset
from federated.learning import task_of
from federated.learning.score_histogram import score_steps
from federated.learning.set_statistics import STEPS
from federated.randomness import numpy_generator
from federated.run.folder import RunFolder
from federated.weights.model_file import load_model

WITHIN = 0.02


@dataclass(frozen=True)
class Held:
    """A site's held-out cases: the bin of each one's true class, validation cases first ``(n,)``.

    ``likely`` are the bins of all classes ``(n, classes)``, and ``val`` how many are validation
    cases.
    """

    bins: npt.NDArray[np.intp]
    likely: npt.NDArray[np.intp]
    val: int

    @property
    def test(self) -> int:
        """How many are test cases."""
        return len(self.bins) - self.val


def held_out(folder: RunFolder) -> dict[str, Held]:
    """What the run's model predicts of the validation and test cases of each site."""
    experiment = folder.experiment()
    dataset = load(folder.data(), experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    cases = experiment_cases(experiment, dataset, partition)
    task, cpu = task_of(dataset.info), torch.device("cpu")
    found = {}
    for site in folder.sites():
        model = load_model(folder.model_path, site)
        parts = [
            task.predict(model, cases.of(site, split), cpu, dataset.info)
            for split in ("val", "test")
        ]
        labels = np.concatenate([part["labels"] for part in parts])
        likely = score_steps(np.concatenate([p["probabilities"] for p in parts]))
        found[site] = Held(likely[np.arange(len(labels)), labels], likely, len(parts[0]["labels"]))
    return found


def threshold_of(bins: npt.NDArray[np.intp], alpha: float) -> int:
    """The bin from which on a class is in a set, by the bins of validation cases' true classes."""
    return threshold_bin(np.bincount(bins, minlength=STEPS).astype(np.int64), alpha)


def redrawn(
    sites: Mapping[str, Held], alpha: float, draws: int, seed: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Coverage over draws ``(draws, 2)`` of each site, by its own threshold and that of all."""
    rng = numpy_generator(seed, purpose="conformal coverage")
    found = {site: np.full((draws, 2), np.nan) for site in sites}
    for draw in range(draws):
        dealt = {site: rng.permutation(held.bins) for site, held in sites.items()}
        val = {site: dealt[site][: held.val] for site, held in sites.items()}
        of_all = threshold_of(np.concatenate(list(val.values())), alpha)
        for site, held in sites.items():
            test = dealt[site][held.val :]
            if len(test):
                at = threshold_of(val[site], alpha), of_all
                found[site][draw] = [(test >= each).mean() for each in at]
    return found


def by_chance(val: int, test: int, alpha: float) -> tuple[float, float]:
    """The mean coverage of exchangeable cases, and the share of draws within two points of 1 − α.

    Without ties; with them coverage is larger.
    """
    k = rank(val, alpha)
    if k > val:
        return 1.0, float(alpha <= WITHIN)
    shares = np.arange(test + 1) / test
    near = np.abs(shares - (1 - alpha)) <= WITHIN + 1e-12
    return k / (val + 1), float(
        betabinom(test, k, val + 1 - k).pmf(np.arange(test + 1))[near].sum()
    )


def lines(sites: Mapping[str, Held], alpha: float, draws: int, seed: int) -> Iterator[str]:
    """Both tables."""
    yield "| site | validation | test | covered in this run | classes in a set |"
    yield "| --- | --- | --- | --- | --- |"
    for site, held in sites.items():
        at = threshold_of(held.bins[: held.val], alpha)
        test, likely = held.bins[held.val :], held.likely[held.val :]
        hits, size = int((test >= at).sum()), (likely >= at).sum(axis=1).mean()
        share = f"{hits} ({hits / held.test:.3f})"
        yield f"| {site} | {held.val} | {held.test} | {share} | {size:.2f} |"
    yield ""
    yield (
        "| site | mean coverage over draws | if exchangeable | within 2 points, of draws | if "
        "exchangeable | by the threshold of all sites |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for site, found in redrawn(sites, alpha, draws, seed).items():
        held = sites[site]
        mean, near = by_chance(held.val, held.test, alpha)
        own, of_all = found.mean(axis=0)
        hit = (np.abs(found[:, 0] - (1 - alpha)) <= WITHIN + 1e-12).mean()
        error = found[:, 0].std() / np.sqrt(draws)
        yield (
            f"| {site} | {own:.3f} ± {error:.3f} | {mean:.3f} | {hit:.0%} | {near:.0%} | "
            f"{of_all:.3f} |"
        )


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--redraws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = RunFolder(given.run.resolve())
    print("\n".join(lines(held_out(folder), given.alpha, given.redraws, given.seed)))


if __name__ == "__main__":
    main()
