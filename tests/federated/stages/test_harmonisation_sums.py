"""Landmarks and features over sites: exactly those of all cases, and each site's own stay there."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from federated.configuration.description_file import find_description
from federated.configuration.load import resolve
from federated.configuration.planned import plan_line, planned_experiment
from federated.data.dataset import SPLITS
from federated.data.folders.histogram_standard import landmarks_of, on_standard_range
from federated.data.folders.read_case import read_case
from federated.data.load import load, locate
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.planning.fingerprint import refuse_impossible
from federated.planning.harmonisation import harmonisation_lines, harmonisation_of
from federated.planning.landmarks import STEPS
from federated.planning.suppression import without_small
from federated.rounds.statistics import scheme_of
from federated.stages.coordinator import ask_statistics
from federated.stages.statistics import compare_site, count_site, own_fingerprint, tell_counted
from tests.described_sets import describe, volume, write_table
from tests.federated.planning.test_combat import central
from tests.federated.staged_run import small_experiment
from tests.federated.stages.counting import (
    begin_with_experiment,
    collect_statistics,
    counted,
    info_of,
    opened_counts,
)
from tests.federated.stages.summing import PROTECTIONS

# Natural sites are called after these, with `site-` before them.
SITES = ("00", "01", "02")
COLUMNS = {"volume": [0, 60], "mean": [-20, 20], "texture": [0, 40]}
VOLUMES = {
    "task": "segmentation",
    "kind": "volumes",
    "modalities": ["T1"],
    "labels": {"background": 0, "tumour": 1},
    "spacing": [1, 1, 1],
    "shape": [8, 8, 8],
    "whole": True,
    "licence": "CC0",
    "features": {"harmonise": "combat", "columns": COLUMNS, "covariates": {"age": [0, 120]}},
    "columns": {"attributes": ["age"]},
}


def own_volumes(folder: Path, each: int = 8, change=lambda rows: rows) -> None:
    """Volumes of three hospitals, each with a scanner of its own, which features show too."""
    rows = []
    for number in range(3 * each):
        place, rng = number % 3, np.random.default_rng(number)
        values = np.zeros((9, 9, 9))
        values[1:-1, 1:-1, 1:-1] = (10 + place) * (20 + rng.gamma(2, 5, (7, 7, 7))) ** (
            1 + place / 3
        )
        mask = np.zeros(values.shape, np.uint8)
        mask[3:5, 3:5, 3:6] = 1
        volume(folder / f"images/c{number:02d}.nii", values.astype(np.float32))
        volume(folder / f"masks/c{number:02d}.nii", mask)
        age = 30 + 5 * place + rng.uniform(0, 40)
        clean = 0.1 * age + rng.standard_normal(3) * (1 + place)
        volume_, mean, texture = np.array([10, 0, 5]) + clean + 3 * place * np.array([1, -1, 1.5])
        rows.append(
            {
                "patient": f"p{number}",
                "image": f"images/c{number:02d}.nii",
                "mask": f"masks/c{number:02d}.nii",
                "site": SITES[place],
                "split": ("test", "val", *["train"] * (each - 2))[number // 3],
                "age": f"{age:.3f}",
                "volume": f"{volume_:.6f}",
                "mean": f"{mean:.6f}",
                "texture": f"{texture:.6f}",
            }
        )
    write_table(folder, change(rows))
    describe(folder, VOLUMES)


def begun(tmp_path: Path, protection: str = "plain", change=lambda rows: rows, **sections):
    if not (tmp_path / "mine").is_dir():
        own_volumes(tmp_path / "mine", change=change)
    described = find_description("mine", tmp_path)
    value = {
        "data": {
            "dataset": "mine",
            "source": "files",
            "root": str(tmp_path),
            "described": described.model_dump(mode="json"),
        },
        "sites": {"count": 3, "partition": "natural", "min_cases": 2},
        "model": {"name": "unet", "norm": "instance", "width": 8},
        "compression": {"name": "none", "bits": 8},
        "protection": {"name": protection},
    }
    return begin_with_experiment(tmp_path / "runs", small_experiment(tmp_path, **value | sections))


def files_of(run):
    """The files of each site's cases, by split."""
    experiment = run.experiment
    dataset = load(locate(experiment.data), experiment.data)
    partition = partition_dataset(dataset, experiment.sites, experiment.seed)
    return {
        site: {s: [dataset.cases[s][i] for i in splits[s]] for s in SPLITS}
        for site, splits in partition.sites.items()
    }


# By a site in a run for statistics, under any protection.
ALL_THAT_IS_SENT = {
    *(kinds.JOINING, kinds.PAYLOAD, kinds.DISTANCES, kinds.TAG, kinds.CONSISTENCY, kinds.OPENED),
    *(kinds.ADVERTISED, kinds.SHARES, kinds.ANSWER),
    *(kinds.SEALING, kinds.SEALED_KEY, kinds.KEY, f"{kinds.HELD}0"),
    *(kinds.REPORT + s for s in ("advertise", "share", "agree", "answer", "vouch", "decrypt")),
    f"{kinds.REPORT}count",
}


def sent_by(run, site):
    """What a site has sent in a sum for statistics, by kind."""
    paths = [p for p in run.folder.exchange_path.rglob("*.message") if p.parent.name == site]
    return {p.parent.parent.name.removeprefix("statistics."): p.read_bytes() for p in paths}


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_the_standard_is_that_of_all_cases_and_features_are_harmonised_as_centrally(
    tmp_path: Path, protection: str
) -> None:
    run = begun(tmp_path, protection)
    topic, summed = opened_counts(run)
    found = collect_statistics(run.coordinator, topic, info_of(run), summed, summed[0])
    told = harmonisation_of(found, ["T1"])
    files = files_of(run)
    train = [case for site in run.sites for case in files[site]["train"]]
    images = [read_case(case)[0][0].values for case in train]
    mean = np.mean([on_standard_range(landmarks_of(image, "x")) for image in images], axis=0)
    np.testing.assert_allclose(told["landmarks"]["standard"]["T1"], mean, atol=2e-6)
    tell_counted(run.coordinator, topic, found)
    values = [np.array([case.features for case in files[s]["train"]]) for s in run.sites]
    expected = central(values, 3)
    for site, theirs in zip(run.sites, expected, strict=True):
        compare_site(run.call(site), 1)
        path = run.store(site).features_path
        assert path.stat().st_mode & 0o777 == 0o600
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0]) == ["case", "split", "volume", "mean", "texture", "age"]
        assert [row["case"] for row in rows] == [c.name for s in SPLITS for c in files[site][s]]
        ours = [[float(row[c]) for c in COLUMNS] for row in rows if row["split"] == "train"]
        np.testing.assert_allclose(ours, theirs, atol=1e-8)
        ages = [float(row["age"]) for row in rows]
        assert ages == [c.features[-1] for s in SPLITS for c in files[site][s]]
        own = [*np.ravel(ours), *(row[column] for row in rows for column in COLUMNS)]
        forms = {part for number in own for part in (np.float64(number).tobytes(), str(number))}
        sent = sent_by(run, site)
        assert set(sent) <= ALL_THAT_IS_SENT
        for form in forms:
            form = form if isinstance(form, bytes) else form.encode()
            assert not any(form in content for content in sent.values())


def test_landmarks_and_features_are_summed_exactly_or_not_at_all(tmp_path: Path) -> None:
    """Noise that is made for counts would hide nothing of them."""
    run = begun(tmp_path)
    scheme = scheme_of(run.experiment, info_of(run))
    assert {"landmarks", "features"} <= set(scheme.shapes)
    for name in ("landmarks", "features"):
        with pytest.raises(ValueError, match="no bound"):
            scheme.norm(name)
    statistics = run.experiment.statistics.model_copy(update={"epsilon": 2.0})
    noised = run.experiment.model_copy(update={"statistics": statistics})
    assert not {"landmarks", "features"} & set(scheme_of(noised, info_of(run)).shapes)


def test_of_fewer_cases_than_min_count_neither_is_told(tmp_path: Path) -> None:
    run = begun(tmp_path)
    site = run.site("site-00")
    scheme = scheme_of(run.experiment, info_of(run))
    own = own_fingerprint(site, scheme, range(6))
    assert own.counts["landmarks"][0, -1] == 6 * STEPS
    assert without_small(own, 6).counts["features"].any()
    for name in ("landmarks", "features"):
        assert not without_small(own, 7).counts[name].any()
    assert "fewer than 7" in harmonisation_of(own, ["T1"], 7)["landmarks"]["refused"]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("landmarks", lambda t: t[:, ::-1].copy()),
        ("landmarks", lambda t: t + 1),
        ("landmarks", lambda t: 4 * t),
        ("features", lambda t: np.where(np.arange(len(t)) == 3, 10**18, t)),
        ("features", lambda t: np.where(np.arange(len(t)) == 0, t - 1, t)),
    ],
)
def test_sums_that_no_cases_have_are_refused_as_those_of_counts_are(
    tmp_path: Path, table: str, change
) -> None:
    run = begun(tmp_path)
    found = counted(run)
    lie = dataclasses.replace(found, counts={**found.counts, table: change(found.counts[table])})
    refuse_impossible(found, found.cases)
    with pytest.raises(ConsiliumError, match=r"sum of what was counted.*(landmarks|features)"):
        refuse_impossible(lie, found.cases)


def one_case(rows):
    """The first site has one training case."""
    for row in rows:
        if row["site"] == "00" and row["split"] == "train" and row["patient"] != "p6":
            row["split"] = "test"
    return rows


def test_a_site_with_one_case_sends_nothing_and_says_why(tmp_path: Path) -> None:
    run = begun(tmp_path, change=one_case)
    ask_statistics(run.coordinator)
    with pytest.raises(ConsiliumError, match="site-00 has 1 cases with features"):
        count_site(run.call("site-00"), 1)


def same_age(rows):
    for row in rows:
        row["age"] = {"00": "40", "01": "50", "02": "60"}[row["site"]]
    return rows


def test_a_covariate_that_is_the_site_is_told_and_all_else_is_reported(tmp_path: Path) -> None:
    run = begun(tmp_path, change=same_age)
    topic, summed = opened_counts(run)
    found = collect_statistics(run.coordinator, topic, info_of(run), summed, summed[0])
    told = harmonisation_of(found, ["T1"])
    assert "age does not vary within any site" in told["features"]["refused"]
    assert len(told["landmarks"]["standard"]["T1"]) == 11
    page = "\n".join(harmonisation_lines(told))
    assert "harmonise: nyul" in page
    assert "age does not vary" in page
    tell_counted(run.coordinator, topic, found)
    compare_site(run.call("site-00"), 1)
    assert not run.store("site-00").features_path.exists()
    assert run.store("site-00").statistics_path.is_file()


def test_a_run_trains_on_the_standard_that_its_sites_have_summed(tmp_path: Path) -> None:
    run = begun(tmp_path)
    found = counted(run)
    planning = {"planning": {"auto": ["data.landmarks"]}}
    data = run.experiment.to_json()["data"] | {"harmonise": "nyul"}
    value = run.experiment.to_json() | {"data": data} | planning
    resolved, made = planned_experiment(resolve(value.pop("name"), value, "a test"), found)
    assert made is None
    assert not resolved.planning.auto
    told = harmonisation_of(found, ["T1"])["landmarks"]["standard"]
    assert dict(resolved.data.landmarks) == {"T1": tuple(told["T1"])}
    assert "standard scale (nyul)" in plan_line(resolved, made, 3)
    standards = load(locate(resolved.data), resolved.data).family.standards
    assert standards == (tuple(told["T1"]),)
