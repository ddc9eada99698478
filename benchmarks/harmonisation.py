"""When to harmonise and when to personalise: a small study on phantoms of two scanners.

    python -m benchmarks.harmonisation
    python -m benchmarks.harmonisation --sarcoma data

Generated volumes of the form of `hippocampus` (PHANTOMS: no anatomy, no patient) are shown by three
scanners. Two have a site each, whose cases are trained on by FedAvg, all in this process; the third
is new, and nobody has trained on its images. In the setting `curve` scanners differ by a gamma
curve, which keeps the order of brightness; in `contrast` they see another order of tissues, as two
sequences do, which no scale of intensities undoes. Each cell is the mean Dice of both labels on
test cases, over seeds, with the standard deviation of the seeds.

With ``--sarcoma`` nothing is trained: of the real T1 images of `sarcoma` below that folder, six of
each of three makers of scanners, it says how much the mean intensity of a tumour varies over cases
once they are prepared, in standard deviations of an image's foreground.
"""

import argparse
import copy
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import nn

from federated.configuration.description_file import find_description
from federated.configuration.load import load_experiment
from federated.data.dataset import DatasetInfo
from federated.data.folders.dataset import folder_info, found_cases
from federated.data.folders.described.family import described_family
from federated.data.folders.families import FAMILIES, CaseFiles, Family
from federated.data.folders.harmonised_family import harmonised
from federated.data.folders.histogram_standard import foreground
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case
from federated.data.folders.read_case import read_case
from federated.data.folders.segmented_cases import SegmentedCases, ShownCase
from federated.data.site_cases import new_kept
from federated.learning import SEGMENTATION
from federated.planning.landmarks import case_landmarks, standard_of
from federated.randomness import derive_seed
from federated.settings.sections import TrainingSettings
from federated.training.loop import Turn, train
from federated.training.rule import LocalRule
from federated.weights.build import new_model

SHAPE = (16, 24, 16)
SCANNERS = ("A", "B", "new")
SITES = SCANNERS[:2]
# In `curve`, the exponent of each scanner's gamma curve; in `contrast`, the brightness of the body
# and of both labels at each.
GAMMAS: Mapping[str, float] = {"A": 1.0, "B": 2.5, "new": 0.4}
BRIGHTNESS: Mapping[str, tuple[float, float, float]] = {
    "A": (0.3, 0.55, 0.8),
    "B": (0.8, 0.55, 0.3),
    "new": (0.55, 0.8, 0.3),
}
METHODS = ("none", "percentiles", "nyul")
CPU = torch.device("cpu")

Values = npt.NDArray[np.float64]


def shown(
    values: Values, mask: npt.NDArray[np.uint8], scanner: str, setting: str, number: int
) -> Values:
    """A phantom ``(*spatial)`` as a scanner shows it, in units of that scanner's own."""
    clean = np.clip(values / 1000, 0, None)
    if setting == "curve":
        return 1000 * clean ** GAMMAS[scanner] * (1 + SCANNERS.index(scanner))
    body = (clean > 0.1).astype(np.float64)
    for place, brightness in enumerate(BRIGHTNESS[scanner]):
        where = (mask == place) & (body > 0) if place == 0 else mask == place
        body[where] = brightness
    noise = np.random.default_rng(number).normal(0, 0.04, values.shape)
    return 1000 * np.clip(body + noise, 0, None)


def write_cases(
    folder: Path, family: Family, setting: str, seed: int, cases: int
) -> dict[str, list[CaseFiles]]:
    """Write generated cases of each scanner below ``folder``; return them."""
    found = {}
    for place, scanner in enumerate(SCANNERS):
        own = folder / scanner
        write_phantom(family, own, cases, derive_seed(seed, purpose=scanner) % 2**31, SHAPE)
        found[scanner] = list(family.find(own).cases)
        for number, case in enumerate(found[scanner]):
            assert case.mask is not None
            image, mask = nibabel.load(case.images[0]), nibabel.load(case.mask)
            values = np.asarray(image.dataobj, np.float64)
            labels = np.asarray(mask.dataobj).astype(np.uint8)
            noise = seed * 1000 + place * 100 + number
            changed = shown(values, labels, scanner, setting, noise).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(changed, image.affine), case.images[0])
    return found


def learned_standard(cases: Sequence[CaseFiles]) -> tuple[float, ...]:
    """Nyúl's standard scale of cases, by the sums that sites would send."""
    sums = sum(case_landmarks([read_case(case)[0][0].values], case.name) for case in cases)
    return standard_of(np.asarray(sums), len(cases))[0]


def cases_of(family: Family, files: Sequence[CaseFiles]) -> SegmentedCases:
    """Cases as the local loop takes them."""
    return SegmentedCases(family, [ShownCase(case, None) for case in files], new_kept())


def federated_mean(models: Sequence[nn.Module]) -> dict[str, torch.Tensor]:
    """The mean of models of sites with equally many cases: FedAvg's."""
    states = [model.state_dict() for model in models]
    return {
        name: torch.stack([state[name].float() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }


def trained(
    model: nn.Module, own: Mapping[str, SegmentedCases], how: TrainingSettings, turn: Turn
) -> dict[str, nn.Module]:
    """Each site's model after a round of its own, from the global one."""
    found = {}
    for site, cases in own.items():
        local = copy.deepcopy(model)
        loss = SEGMENTATION.make_loss(cases, how, INFO, CPU)
        train(local, cases, how, LocalRule(), loss, replace(turn, site=site))
        found[site] = local
    return found


FAMILY = replace(FAMILIES["hippocampus"], spacing=(1.0, 1.0, 1.0), shape=SHAPE)
INFO: DatasetInfo = folder_info(FAMILY, {"train": 0, "val": 0, "test": 0})


def dice(model: nn.Module, cases: SegmentedCases) -> float:
    """The mean Dice over cases and labels."""
    return float(np.mean(SEGMENTATION.predict(model, cases, CPU, INFO)["dice"]))


def measure(
    files: Mapping[str, list[CaseFiles]], method: str, seed: int, rounds: int, training: int
) -> dict[str, dict[str, float]]:
    """The Dice at each scanner, by method: of ``none`` also that of its personalised models.

    Args:
        files: the cases of each scanner.
        method: ``none``, ``percentiles`` or ``nyul``.
        seed: of the weights and of everything drawn.
        rounds: of FedAvg.
        training: how many of a scanner's cases are trained on; the others are for testing.
    """
    family = FAMILY
    if method == "percentiles":
        family = harmonised(FAMILY, "percentiles", None)
    if method == "nyul":
        known = [case for site in SITES for case in files[site][:training]]
        family = harmonised(FAMILY, "nyul", {"MRI": learned_standard(known)})
    own = {site: cases_of(family, files[site][:training]) for site in SITES}
    experiment = load_experiment(
        "hippocampus", ["data.source=phantom", f"seed={seed}", "training.augment=none"]
    )
    how = experiment.training
    model = new_model(experiment, INFO)
    for number in range(1, rounds + 1):
        locals_ = trained(model, own, how, Turn(seed, "", number, rounds))
        model.load_state_dict(federated_mean(list(locals_.values())))

    def scores(models: Mapping[str, nn.Module]) -> dict[str, float]:
        return {s: dice(models[s], cases_of(family, files[s][training:])) for s in SCANNERS}

    models: dict[str, nn.Module] = dict.fromkeys(SCANNERS, model)
    found = {method: scores(models)}
    if method == "none":
        # A fifth of the rounds more, each site by itself from the global model (finetune).
        more = max(1, rounds // 5)
        for number in range(1, more + 1):
            for site in SITES:
                turn = Turn(seed, site, number, more, "personalisation")
                models |= trained(models[site], {site: own[site]}, how, turn)
        found["personalised"] = scores(models)
    return found


MAKERS, OF_EACH = ("ge", "philips", "siemens"), 6


def spread_of_tumours(root: Path) -> dict[str, tuple[float, float, float]]:
    """How the tumours' mean intensity varies: over all cases, between makers, within one.

    Raises:
        ConsiliumError: there is no folder of `sarcoma` below ``root``.
    """
    described = find_description("sarcoma", root)
    assert described is not None
    family = described_family("sarcoma", described)
    found = found_cases(root / "sarcoma", family).cases
    files = [case for maker in MAKERS for case in [c for c in found if c.site == maker][:OF_EACH]]
    result = {}
    for method in METHODS:
        own = family
        if method == "percentiles":
            own = harmonised(family, "percentiles", None)
        if method == "nyul":
            own = harmonised(family, "nyul", {"T1": learned_standard(files)})
        means, scales = [], []
        for case in files:
            prepared = prepare_case(own, case)
            assert prepared.mask is not None
            image = prepared.image[0].numpy()
            means.append(float(image[prepared.mask.numpy() > 0].mean()))
            scales.append(float(image[foreground(image)].std()))
        of_maker = np.array(means).reshape(len(MAKERS), OF_EACH) / np.mean(scales)
        result[method] = (
            float(of_maker.std(ddof=1)),
            float(of_maker.mean(axis=1).std(ddof=1)),
            float(np.sqrt(of_maker.var(axis=1, ddof=1).mean())),
        )
    return result


def main() -> None:
    """Measure every method in both settings and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--cases", type=int, default=12, help="of each scanner")
    parser.add_argument("--training", type=int, default=6, help="of these, trained on at a site")
    parser.add_argument("--sarcoma", type=Path, help="the folder above sarcoma/, for real images")
    given = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=120, highlight=False)
    if given.sarcoma:
        console.print("| method | over all cases | between makers | within a maker |")
        console.print("| --- | --- | --- | --- |")
        for name, numbers in spread_of_tumours(given.sarcoma).items():
            console.print(f"| {name} | {' | '.join(f'{number:.3f}' for number in numbers)} |")
        return
    console.print("PHANTOMS: generated images, no patients. Mean Dice on test cases.\n")
    console.print(
        "| setting | method | site A | site B | new scanner |\n| --- | --- | --- | --- | --- |"
    )
    for setting in ("curve", "contrast"):
        with tempfile.TemporaryDirectory() as folder:
            drawn = [
                write_cases(Path(folder) / str(seed), FAMILY, setting, seed, given.cases)
                for seed in range(given.seeds)
            ]
            for method in METHODS:
                runs = [
                    measure(files, method, seed, given.rounds, given.training)
                    for seed, files in enumerate(drawn)
                ]
                for name in runs[0]:
                    columns = [[run[name][scanner] for run in runs] for scanner in SCANNERS]
                    cells = [
                        f"{np.mean(each):.3f} ± {np.std(each, ddof=len(each) > 1):.3f}"
                        for each in columns
                    ]
                    console.print(f"| {setting} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
