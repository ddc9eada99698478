"""Histories of records and sites: which are told apart, and by which accountant."""

from math import inf, sqrt

import numpy as np
import pytest

from federated.privacy import composition
from federated.privacy.accounting import RDP_ONLY, Release, epsilon
from federated.privacy.composition import (
    Histories,
    meet,
    spent,
    touched_patients,
    touched_records,
    touched_sites,
)
from federated.privacy.spending import (
    EVALUATION,
    EVALUATIONS,
    NO_RELEASE,
    PICTURES,
    SEEDED,
    Counted,
    Kind,
    Spending,
    before_sites_bit,
)

DELTA = 1e-5
KIND = Kind("gaussian", "record", 2.0, 0.1)
SETS = {"x": frozenset("abc"), "y": frozenset("cd"), None: None}


def of(steps, accountant="rdp"):
    return epsilon([Release(2.0, 0.1, steps)], DELTA, accountant)


def histories(*steps):
    """Of as many records, each touched by as many steps as are given."""
    sets = {str(number): frozenset({str(number)}) for number in range(len(steps))}
    totals = {str(number): {KIND: count} for number, count in enumerate(steps)}
    return Histories(totals, touched_records(sets, sets, {}), "record")


def rows(touched):
    return sorted(zip(map(tuple, touched.cases.tolist()), touched.counts.tolist(), strict=True))


class TestTouched:
    def test_records_are_told_apart_by_the_sets_that_have_them(self):
        touched = touched_records("abcde", SETS, {})
        assert touched.sets == ("x", "y", None)
        assert rows(touched) == [((0, 0, 1), 1), ((0, 1, 1), 1), ((1, 0, 1), 2), ((1, 1, 1), 1)]

    def test_a_record_that_is_held_several_times_counts_as_often(self):
        touched = touched_records("abc", SETS, {"x": {"a": 3}, "y": {"c": 2}})
        assert rows(touched) == [((1, 0, 1), 1), ((1, 2, 1), 1), ((3, 0, 1), 1)]

    def test_a_patient_has_all_its_records_each_once(self):
        touched = touched_patients({"p": ["a", "b", "a"], "q": ["c", "d"], "r": []}, SETS, {})
        assert rows(touched) == [((0, 0, 0), 1), ((1, 2, 2), 1), ((2, 0, 2), 1)]

    def test_a_record_of_two_patients_is_of_both(self):
        touched = touched_patients({"p": ["a"], "q": ["a", "b"]}, SETS, {})
        assert rows(touched) == [((1, 0, 1), 1), ((2, 0, 2), 1)]

    def test_a_set_touches_a_site_once_however_many_records_they_share(self):
        touched = touched_sites([frozenset("ab"), frozenset("d"), None], SETS)
        assert rows(touched) == [((0, 1, 1), 1), ((1, 0, 1), 1), ((1, 1, 1), 1)]

    def test_without_units_there_is_no_history(self):
        touched = touched_records([], SETS, {})
        assert len(touched.cases) == len(touched.counts) == 0
        found = Histories({}, touched, "record")
        assert found.worst(DELTA, "prv") == 0.0
        assert found.epsilons(DELTA, "prv") == []
        assert found.within(0.0, DELTA)

    def test_all_records_meet_whatever_set(self):
        assert meet(None, frozenset())
        assert meet(frozenset("a"), None)
        assert meet(frozenset("ab"), frozenset("bc"))
        assert not meet(frozenset("a"), frozenset("b"))


class TestHistories:
    def test_those_that_count_alike_are_one(self):
        found = histories(50, 70, 50)
        assert dict(zip(found.epsilons(DELTA, "rdp"), found.counts, strict=True)) == {
            of(50): 2,
            of(70): 1,
        }

    def test_several_cases_of_a_unit_count_for_records_and_not_for_sites(self):
        totals = {"x": {KIND: 50, Kind("gaussian", "site", 4.0, 1.0): 1}}
        touched = touched_records("a", {"x": frozenset("a")}, {"x": {"a": 3}})
        (found,) = Histories(totals, touched, "record").epsilons(DELTA, "rdp")
        three = Release(2.0 / 3, 1 - 0.9**3, 50)
        assert found == epsilon([three, Release(2.0, 1.0, 1)], DELTA, "rdp")
        site = {"x": {Kind("gaussian", "site", 4.0, 1.0): 1}}
        (found,) = Histories(site, touched, "site").epsilons(DELTA, "rdp")
        assert found == epsilon([Release(4.0, 1.0, 1)], DELTA, "rdp")

    def test_what_has_no_bound_is_one_history_whatever_else_was_released(self):
        totals = {
            "x": {Kind("none", "record", 0.0, 1.0): 1, KIND: 5},
            "y": {Kind("none", "record", 0.0, 1.0): 2, Kind(EVALUATION, "record", 0.0, 1.0): 1},
        }
        sets = {"x": frozenset("a"), "y": frozenset("b")}
        found = Histories(totals, touched_records("abc", sets, {}), "record")
        values = found.epsilons(DELTA, "prv")
        assert dict(zip(values, found.counts, strict=True)) == {inf: 2, 0.0: 1}
        assert found.worst(DELTA, "prv") == found.worst(DELTA, "rdp") == inf
        assert not found.within(1e9, DELTA)

    def test_only_those_that_spent_most_are_composed_by_prv(self, monkeypatch):
        monkeypatch.setattr(composition, "MOST_BY_PRV", 2)
        found = histories(300, 100, 200)
        assert sorted(found.epsilons(DELTA, "prv")) == sorted(
            [of(100), of(200, "prv"), of(300, "prv")]
        )
        assert sorted(found.epsilons(DELTA, "rdp")) == [of(100), of(200), of(300)]

    def test_the_worst_by_prv_is_settled_by_the_few_that_spent_most(self, monkeypatch):
        monkeypatch.setattr(composition, "MOST_BY_PRV", 2)
        assert histories(100, 2000, 200).worst(DELTA, "prv") == of(2000, "prv")

    def test_where_prv_does_not_settle_the_worst_it_is_a_bound_by_rdp(self, monkeypatch):
        monkeypatch.setattr(composition, "MOST_BY_PRV", 2)
        assert histories(998, 1000, 999).worst(DELTA, "prv") == of(998)
        monkeypatch.setattr(composition, "MOST_BY_PRV", 3)
        assert histories(998, 1000, 999).worst(DELTA, "prv") == of(1000, "prv")

    def test_a_limit_is_kept_up_to_its_last_bit_by_either_accountant(self):
        found = histories(400, 100)
        assert of(400, "prv") < of(400)
        assert found.within(of(400), DELTA)
        assert found.within(of(400, "prv"), DELTA)
        assert not found.within(np.nextafter(of(400, "prv"), 0), DELTA)

    def test_a_small_worst_is_as_small_as_it_is(self):
        assert histories(1, 2).worst(DELTA, "prv") == of(2, "prv") < 1

    def test_units_of_which_nothing_was_released_are_within_every_limit(self):
        totals = {"x": {KIND: 100, Kind("gaussian", "record", 1.5, 0.1): 60}}
        touched = touched_records("az", {"x": frozenset("a")}, {})
        found = Histories(totals, touched, "record")
        both = epsilon([Release(2.0, 0.1, 100), Release(1.5, 0.1, 60)], DELTA, "rdp")
        assert found.within(both, DELTA)
        assert not found.within(both / 2, DELTA)

    def test_no_unit_need_have_all_that_any_has(self):
        other = Kind("gaussian", "record", 1.5, 0.1)
        sets = {"x": frozenset("a"), "y": frozenset("b")}
        totals = {"x": {KIND: 100}, "y": {other: 60}}
        found = Histories(totals, touched_records("ab", sets, {}), "record")
        most = found.worst(DELTA, "rdp")
        assert most < epsilon([Release(2.0, 0.1, 100), Release(1.5, 0.1, 60)], DELTA, "rdp")
        assert found.within(most, DELTA)


class TestSpent:
    ONE = Spending("gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "adrenal", "site-00")

    def test_where_only_renyi_divergences_are_known_epsilon_is_by_those(self):
        one = Spending(RDP_ONLY, "record", 2.0, 0.1, 50, 1.0, 1, "run", "adrenal", "site-00")
        assert spent([self.ONE, one], "record", DELTA, "prv") == of(100)
        assert spent([self.ONE, self.ONE], "record", DELTA, "prv") == of(100, "prv")

    def test_a_patient_of_one_case_is_a_record_and_one_of_two_is_less_protected(self):
        assert spent([self.ONE], "record", DELTA, "rdp") == of(50)
        two = epsilon([Release(1.0, 1 - 0.9**2, 50)], DELTA, "rdp")
        assert spent([self.ONE], "record", DELTA, "rdp", cases=2) == two


class TestKinds:
    @pytest.mark.parametrize(
        "mechanism",
        [
            "none",
            *EVALUATIONS.values(),
            PICTURES,
            "laplace at a private percentile",
            "gaussian" + SEEDED,
        ],
    )
    def test_what_has_no_bound_counts_for_nobody(self, mechanism):
        assert Kind(mechanism, "record", 2.0, 0.1).for_unit("record") is None
        assert Kind(mechanism, "site", 2.0, 0.1).for_unit("site") is None

    def test_no_noise_is_no_bound_and_little_noise_is_one(self):
        assert Kind("gaussian", "record", 0.0, 0.1).for_unit("record") is None
        assert Kind("gaussian", "record", 1.0, 0.1).for_unit("record") == Counted(1.0, 0.1, False)

    @pytest.mark.parametrize(("cases", "counted"), [(1, (2.0, 0.1)), (2, (1.0, 1 - 0.9**2))])
    def test_a_release_at_record_level_counts_by_the_cases_of_a_patient(self, cases, counted):
        assert KIND.for_unit("record", cases) == Counted(*counted, False)
        assert KIND.for_unit("site", cases) is None

    @pytest.mark.parametrize("cases", [1, 2])
    def test_a_release_at_site_level_counts_for_a_site_as_it_is_and_for_a_record_at_half(
        self, cases
    ):
        kind = Kind(RDP_ONLY, "site", 8.0, 0.5)
        assert kind.for_unit("site", cases) == Counted(8.0, 0.5, True)
        assert kind.for_unit("record", cases) == Counted(4.0, 0.5, True)

    def test_evaluations_and_pictures_are_no_training(self):
        one = TestSpent.ONE
        assert one.trains
        assert one.release == Release(2.0, 0.1, 50)
        for mechanism in (*EVALUATIONS.values(), PICTURES):
            told = Spending(mechanism, "record", 0.0, 1.0, 1, 0.0, 1, "run", "adrenal", "site-00")
            assert not told.trains
        assert epsilon([NO_RELEASE], DELTA, "rdp") == inf
        assert (NO_RELEASE.sampling_rate, NO_RELEASE.steps) == (1.0, 1)

    def test_the_clip_of_older_versions_is_counted_with_the_sensitivity_it_has(self):
        assert before_sites_bit(2.0, None) == before_sites_bit(2.0, 1.0) == 1.0
        assert before_sites_bit(2.0, 0.1) == 1.0
        assert before_sites_bit(4.0, 5.0) == pytest.approx(1 / sqrt(1 / 16 + 0.75 / 25))
