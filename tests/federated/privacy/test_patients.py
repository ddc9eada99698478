"""ε of a patient with several cases, against the mechanism itself."""

from math import comb

import numpy as np
import pytest

from federated.privacy import DPSGD, SiteLevel
from federated.privacy.accounting import Release
from federated.privacy.ledger import Ledger
from federated.privacy.patients import most_of_one, patient_warnings
from federated.privacy.spending import Kind, Spending

GRID = np.linspace(-40, 60, 400_001)


def delta_of(epsilon, weights, places, sigma):
    """The exact δ of a step: a mixture of Gaussians against the one at 0, in both directions."""

    def density(place):  # scipy's takes several times as long
        return np.exp(-(((GRID - place) / sigma) ** 2) / 2) / (sigma * np.sqrt(2 * np.pi))

    with_patient = sum(w * density(p) for w, p in zip(weights, places, strict=True))
    without = density(0)
    width = GRID[1] - GRID[0]
    pairs = ((with_patient, without), (without, with_patient))
    return max(np.clip(p - np.exp(epsilon) * q, 0, None).sum() * width for p, q in pairs)


@pytest.mark.parametrize("cases", [1, 2, 3, 5])
@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_a_patients_cases_count_as_one_mechanism_that_tells_no_less(cases, rate, noise):
    """Each is drawn by itself; their clipped gradients may all point the same way."""
    drawn = [comb(cases, k) * rate**k * (1 - rate) ** (cases - k) for k in range(cases + 1)]
    counted = Kind("gaussian", "record", noise, rate).for_unit("record", cases)
    for epsilon in (0.1, 0.5, 1.0, 3.0):
        true = delta_of(epsilon, drawn, range(cases + 1), noise)
        share = counted.sampling_rate
        said = delta_of(epsilon, [1 - share, share], [0, 1], counted.noise_multiplier)
        assert said >= true * (1 - 1e-6) - 1e-12
        if cases > 1 and true > 1e-9:
            alone = delta_of(epsilon, [1 - rate, rate], [0, 1], noise)
            assert true > 1.05 * alone


def test_a_site_level_release_protects_a_patient_as_it_does_a_record():
    kind = Kind("gaussian", "site", 4.0, 1.0)
    assert kind.for_unit("record", 7) == kind.for_unit("record")


PLANNED = [Release(2.0, 0.1, 50)] * 2


def test_the_run_says_how_many_cases_of_one_patient_there_are_and_what_that_means():
    privacy = DPSGD(noise_multiplier=2.0, delta=1e-5)
    patients = ["a", "b", "a", "c", "a"]
    assert most_of_one(patients) == 3
    (warning,) = patient_warnings(privacy, "site-00", PLANNED, patients)
    assert "site-00 has up to 3 training cases of one patient" in warning
    assert patient_warnings(privacy, "site-00", PLANNED, ["a", "b"]) == []
    (warning,) = patient_warnings(privacy, "site-00", PLANNED, None)
    assert "no epsilon can be stated for a patient" in warning
    site = SiteLevel(clip=1.0, noise_multiplier=2.0)
    assert patient_warnings(site, "site-00", PLANNED, patients) == []


def test_the_ledger_counts_all_records_of_a_patient(tmp_path):
    ledger = Ledger(tmp_path / "holder.jsonl")
    one = Spending("gaussian", "record", 4.0, 0.1, 50, 1.0, 1, "run", "adrenal", "site-00")
    ledger.spend(one, ["a", "b", "c"])
    ledger.spend(one, ["c", "d"])
    record = ledger.histories(["c"], "record").worst(1e-5, "rdp")
    apart = ledger.of_patients({"p": ["a"], "q": ["d"]}).worst(1e-5, "rdp")
    together = ledger.of_patients({"p": ["a", "b"], "q": ["d"]}).worst(1e-5, "rdp")
    over_two = ledger.of_patients({"p": ["a", "d"]}).worst(1e-5, "rdp")
    assert apart < over_two == record < together
