"""Small counts of subgroups: what somebody can work out who sees what a site sends.

The attack is that of ``test_suppression.py``: it knows the rule, goes through all sites of a few
cases, puts those together that send the same, and asks of every set of kinds of cases whether their
number is the same in all of them. A kind is what a case is and which groups it is in. Totals, what
is told of all cases, other attributes, and what follows from a group being hidden are in it.
"""

from functools import cache, partial
from itertools import product

import numpy as np
import pytest

from federated.data.dataset import DatasetInfo
from federated.learning import shared_arrays, task_of
from federated.learning.coarse_scores import coarse_bins
from federated.learning.final_task import final_task
from federated.learning.score_histogram import score_steps, step_bins
from federated.learning.statistics import to_wire
from federated.learning.subgroup_statistics import final_of
from federated.learning.subgroup_suppression import told_groups
from federated.settings.sections import EvaluationSettings
from tests.federated.learning.test_suppression import (
    BINARY,
    LESION,
    attack,
    classified,
    segmented,
    whole_numbers,
)

SEX = {"sex": ("F", "M")}
BOTH = {"sex": ("F",), "age": (50.0,)}
# Of a case the label and probabilities, right and wrong.
ANSWERS = [(1, (0.3, 0.7)), (0, (0.2, 0.8))]
MINIMUM = 3


def asked_for(subgroups, minimum=MINIMUM, **settings):
    return EvaluationSettings(subgroups=subgroups, min_count=minimum, **settings)


def told_in(info, settings, attributes, predicted):
    """All counts that a site tells of one model: after its round, and at the end.

    ``predicted`` makes predictions of what cases are, which stands before the groups they are in.
    After its round a site tells of no groups, and the same of the same cases.
    """
    task, at_the_end = task_of(info, settings), final_task(info, settings)

    @cache
    def after_round(whats):
        return whole_numbers(shared_arrays(task, predicted(whats), info, settings))

    def sent(cases):
        whats = tuple(what for what, *_ in cases)
        places = {
            name: np.array([case[1 + number] for case in cases], np.int64)
            for number, name in enumerate(attributes)
        }
        at_end = to_wire(final_of(at_the_end, predicted(whats), places))
        return after_round(whats), whole_numbers(at_end)

    return sent


def classified_in(settings, attributes):
    return told_in(BINARY, settings, attributes, partial(classified, classes=2))


def test_no_small_group_can_be_read_nor_what_a_model_makes_of_one():
    kinds = list(product(ANSWERS, (0, 1, 2)))
    assert attack(kinds, 8, MINIMUM, classified_in(asked_for(SEX), SEX)) == 0


def test_nor_from_two_attributes_together():
    """Groups of one attribute may be parts of those of another, as smokers and pack years are."""
    kinds = [(ANSWERS[0], sex, age) for sex, age in product((0, 1), (0, 1, 2))]
    assert attack(kinds, 7, MINIMUM, classified_in(asked_for(BOTH), BOTH)) == 0
    kinds = [(answer, sex, age) for answer, sex, age in product(ANSWERS, (0, 1), (0, 1))]
    assert attack(kinds, 6, MINIMUM, classified_in(asked_for(BOTH), BOTH)) == 0


def test_nor_from_attributes_of_which_one_is_a_part_of_the_other():
    """Who has pack years has smoked: the difference of the two is a group."""
    kinds = [(ANSWERS[0], sex, age) for sex, age in ((0, 0), (0, 1), (1, 1))]
    assert attack(kinds, 9, MINIMUM, classified_in(asked_for(BOTH), BOTH)) == 0


def test_nor_from_what_was_told_of_the_model_after_its_round_in_finer_bins():
    """Of cases in one bin of the end those in another one of the round are all of one group."""
    near = [0.7, 0.703]
    both = np.array([[1 - p, p] for p in near])
    assert len(np.unique(coarse_bins(both)[:, 1])) == 1
    assert len(np.unique(step_bins(score_steps(both))[:, 1, 0])) == 2
    low, high = ((1, (1 - p, p)) for p in near)
    kinds = [(low, 0), (low, 1), (high, 1)]
    assert attack(kinds, 9, MINIMUM, classified_in(asked_for(SEX), SEX)) == 0


def test_nor_where_cases_have_been_told_apart_by_nothing_but_one_of_many_groups():
    def sent(cases):
        counts = counts_by_group(cases, 5)
        own = np.array([group for _, group in cases])
        told = told_groups({"scanner": own}, {"scanner": 5}, [], MINIMUM)["scanner"]
        return tuple(int(n) if t else -1 for n, t in zip(counts, told, strict=True))

    assert attack([(0, group) for group in range(5)], 12, MINIMUM, sent) == 0


def test_nor_in_segmentation_where_events_hide_in_sums():
    settings = asked_for(SEX)
    lesions = [(True, 1.0), (False, 0.0), (False, 0.7)]
    sent = told_in(LESION, settings, SEX, segmented)
    assert attack(list(product(lesions, (0, 1))), 8, MINIMUM, sent) == 0


# What would not do, and the attack finds it: so it is an attack.


def counts_by_group(cases, groups=3):
    return np.bincount([group for _, group in cases], minlength=groups)


def test_the_attack_reads_a_group_that_alone_is_hidden_from_the_total():
    def sent(cases):
        return tuple(-1 if 0 < count < MINIMUM else int(count) for count in counts_by_group(cases))

    assert attack([(0, group) for group in range(3)], 8, MINIMUM, sent) > 0


def smallest_first(counts, empty_too):
    """Which groups are told where the smallest are hidden first, until they are enough."""
    told, hidden = np.ones(len(counts), bool), 0
    order = iter(np.argsort(counts, kind="stable"))
    while ((counts[told] > 0) & (counts[told] < MINIMUM)).any() or 0 < hidden < MINIMUM:
        place = next(order, None)
        if place is None:
            return told
        if counts[place] or empty_too:
            told[place] = False
            hidden += counts[place]
    return told


@pytest.mark.parametrize("empty_too", [False, True])
def test_the_attack_reads_sizes_from_which_groups_are_hidden(empty_too):
    """Which would have been hidden, had a group one case more, is known from the sizes told."""

    def sent(cases):
        counts = counts_by_group(cases, 4)
        told = smallest_first(counts, empty_too)
        return tuple(int(n) if own else -1 for n, own in zip(counts, told, strict=True))

    assert attack([(0, group) for group in range(4)], 9, MINIMUM, sent) > 0


def test_the_attack_reads_what_a_model_makes_of_a_group_where_only_its_size_is_looked_at():
    told = classified_in(asked_for(SEX, 0), SEX)

    def sent(cases):
        if min(n for n in counts_by_group(cases) if n) < MINIMUM:
            return None
        return told(cases)

    assert attack(list(product(ANSWERS, (0, 1))), 7, MINIMUM, sent) > 0


def test_the_attack_reads_two_attributes_of_which_each_is_looked_at_alone():
    """Of 7 cases 4 are F and 3 are old, and every old one is F: one is F and young."""

    def sent(cases):
        found = []
        for place in (1, 2):
            own = np.array([case[place] for case in cases])
            told = told_groups({"own": own}, {"own": 2}, [], MINIMUM)["own"]
            counts = np.bincount(own, minlength=2)
            found += [int(n) if t else -1 for n, t in zip(counts, told, strict=True)]
        return tuple(found)

    kinds = [(0, 0, 0), (0, 0, 1), (0, 1, 1)]
    assert attack(kinds, 8, MINIMUM, sent) > 0


def test_without_a_minimum_all_groups_are_told():
    places = {"sex": np.array([0, 0, 1])}
    assert told_groups(places, {"sex": 3}, [], 0)["sex"].tolist() == [True, True, True]


def test_groups_are_hidden_from_the_last_one_on_and_never_one_alone():
    def told(*counts):
        places = {"age": np.repeat(np.arange(len(counts)), counts)}
        return told_groups(places, {"age": len(counts)}, [], 3)["age"].tolist()

    assert told(9, 5, 6, 0) == [True, True, True, True]
    assert told(9, 5, 6, 1) == [True, True, False, False]
    assert told(9, 1, 6, 5) == [True, False, False, False]
    assert told(1, 9, 6, 5) == [False, False, False, False]
    assert told(2, 2) == [False, False]


def test_patients_with_several_cases_in_a_group_are_no_small_group_either():
    """Six cases of five patients: one has two."""
    places = {"sex": np.repeat([0, 1], 6)}
    alike = np.arange(12)
    told = told_groups(places, {"sex": 2}, [], 3, alike)
    assert told["sex"].tolist() == [True, True]
    one_twice = alike.copy()
    one_twice[1] = 0
    told = told_groups(places, {"sex": 2}, [], 3, one_twice)
    assert told["sex"].tolist() == [False, False]


@pytest.mark.parametrize("minimum", [0, 3])
def test_a_site_without_a_case_tells_that_all_groups_are_empty(minimum):
    info = DatasetInfo("two", ("a", "b"), 2, 1, {}, "")
    settings = asked_for(SEX, minimum)
    found = final_of(final_task(info, settings), classified([], 2), {"sex": np.zeros(0, np.int64)})
    assert found.arrays["sex.told"].tolist() == [1, 1, 1]
    assert not found.arrays["sex.cases"].any()
