"""The noise on counts: its sensitivity is that of a patient, and its size what ε asks for."""

import dataclasses

import numpy as np
import pytest

from federated.configuration.load import resolve
from federated.data.folders.volume import Volume
from federated.planning.bins import count
from federated.planning.fingerprint import SIZES, Fingerprint, Scheme, fingerprint_of, sum_of
from federated.privacy.accounting import NOISED_COUNTS, epsilon
from federated.privacy.noise import fresh_random
from federated.privacy.spending import Kind
from federated.rounds.statistics import CountNoise, case_release, kept_cases, statistics_release

VOLUMES = Scheme(3, 2, 4, voxelwise=True, attributes=("age", "sex", "scanner"))
PICTURES = Scheme(2, 1, 5, voxelwise=False)


def experiment(**statistics):
    sections = {"statistics": {"epsilon": 1.0, "delta": 1e-5} | statistics}
    sections |= {"data": {"dataset": "adrenalmnist3d"}, "strategy": {"name": "fedavg"}}
    sections |= {name: {"name": "none"} for name in ("privacy", "compression")}
    return resolve("x", sections | {"protection": {"name": "plain"}}, "a test")


def extreme(scheme, seed):
    """A case that adds as much as any: one intensity, every class, every table."""
    rng = np.random.default_rng(seed)
    shape = (30, 30, 30) if scheme.dims == 3 else (120, 120)
    labels = rng.integers(0, scheme.classes, shape) if scheme.voxelwise else np.array([seed % 5])
    image = Volume(np.full((1, *shape), 7.0 + seed), np.eye(4) if scheme.dims == 3 else None)
    return fingerprint_of(scheme, [image] * scheme.modalities, labels, {"age": "50", "sex": "f"})


@pytest.mark.parametrize("scheme", [VOLUMES, PICTURES])
@pytest.mark.parametrize("cases", [1, 3])
def test_a_patient_moves_a_table_by_no_more_than_its_sensitivity(scheme, cases):
    """With all cases of a patient that count, whatever they are; and by so much one can move it."""
    before = sum_of(scheme, [extreme(scheme, 9)])
    most = {name: cases * scheme.norm(name) for name in scheme.shapes}
    # Three cases alike move a table three times as far as one.
    after = sum_of(scheme, [extreme(scheme, 9), *[extreme(scheme, 2)] * cases])
    for name in scheme.shapes:
        moved = np.linalg.norm((after.counts[name] - before.counts[name]).astype(float))
        assert moved <= most[name] * (1 + 1e-9), name
        if name != "intensity" or not scheme.voxelwise:
            assert moved == pytest.approx(most[name]), name
    intensity = after.counts["intensity"] - before.counts["intensity"]
    assert intensity.max() == 10_000 * cases


@pytest.mark.parametrize("scheme", [VOLUMES, PICTURES])
@pytest.mark.parametrize("cases", [1, 4])
def test_all_tables_together_have_the_epsilon_that_is_asked_for(scheme, cases):
    found = experiment(cases_per_patient=cases)
    noise = CountNoise.of(scheme, found)
    # The Gaussian mechanism on all tables, each over its noise: the squares add up.
    moved = sum((cases * scheme.norm(n) / noise.deviations[n]) ** 2 for n in scheme.shapes)
    release = dataclasses.replace(statistics_release(found), noise_multiplier=moved**-0.5)
    assert epsilon([release], 1e-5, "rdp") <= 1.0
    assert epsilon([release], 1e-5, "rdp") == pytest.approx(1.0, abs=0.01)


def test_the_ledgers_entry_is_a_cases_and_comes_to_the_same_for_a_patient():
    found = experiment(cases_per_patient=4)
    entered = Kind(NOISED_COUNTS, "record", case_release(found).noise_multiplier, 1.0)
    counted = entered.for_unit("record", 4)
    assert counted.noise_multiplier == statistics_release(found).noise_multiplier
    assert counted.rdp_only


def test_of_a_patient_the_first_cases_count_whoever_else_is_there():
    patients = ["a", "b", "a", "a", "c", "b"]
    assert kept_cases(patients, 6, 1) == (0, 1, 4)
    assert kept_cases(patients, 6, 2) == (0, 1, 2, 4, 5)
    others = [p for p in patients if p != "b"]
    assert [others[n] for n in kept_cases(others, 4, 2)] == ["a", "a", "c"]
    assert kept_cases(None, 3, 1) == (0, 1, 2)


def test_what_is_sent_is_within_the_bounds_and_the_sum_is_that_of_the_counts_with_noise():
    noise = CountNoise.of(PICTURES, experiment())
    sites = [sum_of(PICTURES, [extreme(PICTURES, n) for n in range(3)])] * 5
    sent = [noise.added(site.vector, 3, fresh_random()) for site in sites]
    bounds = noise.bounds(3)
    start = 0
    for length, most in bounds.parts:
        for vector in sent:
            part = vector[start : start + length]
            assert part.min() >= 0
            assert part.max() <= most
        start += length
    exact = sum(site.vector for site in sites)
    gap = noise.signed(np.sum(sent, axis=0), 5) - exact
    sizes = slice(6, 6 + 976)
    deviation = noise.deviations["size"] * 5**0.5
    assert np.abs(gap[sizes]).max() < 6 * deviation
    assert gap[sizes].max() > deviation


def test_without_epsilon_there_is_no_noise_and_nothing_is_added():
    noise = CountNoise.of(PICTURES, experiment(epsilon=None))
    vector = extreme(PICTURES, 1).vector
    np.testing.assert_array_equal(noise.added(vector, 1, fresh_random()), vector)
    assert noise.bounds(1).parts[0] == (1, 1)


def test_of_many_cases_the_median_is_found_through_the_noise_and_its_error_is_as_told():
    scheme = Scheme(2, 1, 2, voxelwise=False)
    noise, sites, cases = CountNoise.of(scheme, experiment(epsilon=8.0)), 4, 40_000
    rng = np.random.default_rng(0)
    exact = np.zeros(scheme.size, np.int64)
    sizes = rng.normal(512, 40, cases).round()
    exact[3 : 3 + 976] = count(SIZES, sizes)
    sent = [noise.added(exact // sites, cases, fresh_random()) for _ in range(sites)]
    found = Fingerprint.read(scheme, noise.removed(np.sum(sent, axis=0), sites))
    told = noise.rank_error(sites, cases)
    assert 0 < told < 0.02
    place = np.mean(sizes <= found.quantile("size", 0.5))
    assert abs(place - 0.5) < 5 * told + 0.06
    assert noise.rank_error(sites, 20) > 1
