"""Every protection adds the statistics of sites, and gives the metrics of all cases together."""

import numpy as np
import pytest

from federated.data.dataset import DatasetInfo
from federated.errors import ConsiliumError
from federated.learning import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION
from federated.learning.quantised_statistics import (
    STEP,
    refuse_inconsistent,
    statistics_bounds,
    summed_statistics,
    whole_statistics,
)
from federated.learning.statistics import EvaluationStatistics, add
from federated.protection import CKKS, PackedBFV, Plain
from federated.protection.digits import digit_base, summed_numbers, to_digits
from tests.federated.learning.test_statistics import (
    AGES,
    CHEST,
    SCANS,
    classified,
    labelled,
    numbered,
    segmented,
)
from tests.federated.protection.masked_round import SITES, begin
from tests.federated.protection.test_protection import key_for, summed, update

# Of a quantised value, and so of a digit.
BITS = 8
BASE = digit_base(BITS)
MOST_CASES = 200
ORGANS = DatasetInfo("organmnist3d", tuple("abcde"), 3, 1, {}, "")
TASKS = pytest.mark.parametrize(
    ("task", "info"),
    [(CLASSIFICATION, ORGANS), (SEGMENTATION, SCANS), (MULTILABEL, CHEST), (REGRESSION, AGES)],
    ids=["classes", "masks", "labels", "numbers"],
)
INFO = {CLASSIFICATION: ORGANS, SEGMENTATION: SCANS, MULTILABEL: CHEST, REGRESSION: AGES}
PREDICT = {
    CLASSIFICATION: classified,
    SEGMENTATION: segmented,
    MULTILABEL: labelled,
    REGRESSION: numbered,
}


def statistics_of(task, info, sites=6):
    return [task.statistics.of(PREDICT[task](site, 50 + site), info) for site in range(sites)]


def by_encryption(protection):
    def total(vectors):
        key = key_for(protection, len(vectors[0]), len(vectors), BITS)
        return summed(protection, [update(each) for each in vectors], key)[0]

    return total


def in_the_clear(vectors):
    return summed(Plain(), [update(each) for each in vectors])[0]


def by_masks(vectors):
    parties = begin(bits=16)
    quantised = dict(zip(SITES, vectors, strict=True))
    total = sum(parties.masked(quantised, site) for site in SITES)
    answers = parties.answers({site: parties.view(site, SITES) for site in SITES})
    return parties.unmask(total, answers, SITES).sums.astype(np.float64)


PROTECTIONS = {
    "plain": in_the_clear,
    "packed_bfv": by_encryption(PackedBFV()),
    "ckks": by_encryption(CKKS()),
    "secagg_plus": by_masks,
}


def summed_by(name, parts, form):
    bounds = statistics_bounds(form, MOST_CASES)
    vectors = [to_digits(whole_statistics(part, form), bounds, BASE) for part in parts]
    assert {each.shape for each in vectors} == {(bounds.digits(BASE),)}
    total = PROTECTIONS[name](vectors)
    return summed_statistics(summed_numbers(total, bounds, BASE, len(parts)), form)


@TASKS
@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_protection_adds_them(task, info, name):
    kind, parts = task.statistics, statistics_of(task, info)
    form = kind.form(info)
    found, expected = summed_by(name, parts, form), add(parts, form)
    for key, part in form.items():
        tolerance = len(parts) * STEP if part.real else 0
        np.testing.assert_allclose(found.arrays[key], expected.arrays[key], rtol=0, atol=tolerance)
    exact = kind.measure(expected, info).metrics
    for key, value in kind.measure(found, info).metrics.items():
        # A regression's are in its own unit, of which there are 120 in its range.
        near = 1e-3 if key.endswith("_sd") or task is REGRESSION else 1e-6
        assert value == pytest.approx(exact[key], abs=near)
    refuse_inconsistent(found, form, expected.cases)


@TASKS
def test_nothing_is_summed_of_which_a_site_withholds_a_part(task, info):
    """Of that, the sum would be of the other sites alone, and so perhaps of one."""
    form = task.statistics.form(info)
    name = {SEGMENTATION: "sums", REGRESSION: "labels"}.get(task, "scores")
    one, *_ = statistics_of(task, info)
    with pytest.raises(ValueError, match=f"{name}.*withheld"):
        whole_statistics(one.without([name]), form)


@pytest.mark.parametrize("loss", [2.0**41, -1.0, np.nan, np.inf])
def test_a_number_without_room_is_refused(loss):
    form = CLASSIFICATION.statistics.form(ORGANS)
    (one,) = statistics_of(CLASSIFICATION, ORGANS, 1)
    large = EvaluationStatistics({**one.arrays, "loss": np.array([loss])})
    with pytest.raises(ConsiliumError, match=r" in 'loss', which is negative or more than fits"):
        whole_statistics(large, form)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(ValueError, match="values"):
        summed_statistics(np.zeros(3, np.int64), CLASSIFICATION.statistics.form(ORGANS))


@pytest.mark.parametrize("task", [MULTILABEL, REGRESSION], ids=["labels", "numbers"])
def test_the_largest_statistics_that_cases_can_have_fit_their_bounds(task):
    """Of cases that are as wrong as can be, and sure of it."""
    info = INFO[task]
    form, cases = task.statistics.form(info), 7
    one, zero = np.ones((cases, 3)), np.zeros((cases, 3))
    worst = [{"labels": ones.astype(np.int64), "probabilities": 1 - ones} for ones in (one, zero)]
    if task is REGRESSION:
        ends = (np.full(cases, 0.0), np.full(cases, 120.0))
        worst = [{"labels": y, "predicted": found} for y in ends for found in ends]
    bounds = statistics_bounds(form, cases)
    for part in worst:
        statistics = task.statistics.of(part, info)
        digits = to_digits(whole_statistics(statistics, form), bounds, BASE)
        numbers = summed_numbers(digits.astype(np.float64), bounds, BASE, 1)
        refuse_inconsistent(summed_statistics(numbers, form), form, cases)


def test_sums_whose_terms_are_bounded_take_fewer_digits():
    """Two of seven bits for the number of cases, and four for each of six sums, and not nine."""
    bounds = statistics_bounds(REGRESSION.statistics.form(AGES), MOST_CASES)
    assert bounds.digits(BASE) == 2 + 6 * 4


LIES = {
    CLASSIFICATION: {
        "cases": (lambda a: a + 1, "of 316 cases, and the sites in the sum have 315"),
        "outcomes": (lambda a: a + 1, "'outcomes' counts 317, not 1 for each case"),
        "confusion": (lambda a: a * 2, "'confusion' counts 630, not 1 for each case"),
        "scores": (lambda a: a // 2, "'scores' counts .*, not 10 for each case"),
        "places": (lambda a: a + 16 * 315, "'places' is above 15 for each case"),
        "reliability": (lambda a: a * 400, "above the number of cases"),
    },
    SEGMENTATION: {
        "cases": (lambda a: a - 1, "of 314 cases"),
        "with_class": (lambda a: a + 400, "'with_class' has a count above the number of cases"),
        "patients": (lambda a: a * 0, "'patients' counts nothing"),
    },
    MULTILABEL: {
        "cases": (lambda a: a + 1, "of 316 cases, and the sites in the sum have 315"),
        "outcomes": (lambda a: a + 1, "'outcomes' counts 319, not 1 for each case"),
        "confusion": (lambda a: a * 2, "'confusion' counts 1890, not 3 for each case"),
        "scores": (lambda a: a // 2, "'scores' counts .*, not 6 for each case"),
        "reliability": (lambda a: a * 400, "above the number of cases"),
        "confidence": (lambda a: a + 316, "'confidence' is above 1 for each case"),
        "loss": (lambda a: a + 40 * 315, r"'loss' is above 36\.\d* for each case"),
    },
    REGRESSION: {
        "cases": (lambda a: a - 1, "of 314 cases"),
        "labels": (lambda a: a + 315, "'labels' is above 1 for each case"),
        "prediction_squares": (lambda a: a + 315, "'prediction_squares' is above 1 for each case"),
    },
}


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, lies in LIES.items() for name in lies]
)
def test_sums_that_no_cases_have_are_refused(task, name):
    info = INFO[task]
    form = task.statistics.form(info)
    total = add(statistics_of(task, info), form)
    assert total.cases == 315
    change, said = LIES[task][name]
    wrong = EvaluationStatistics({**total.arrays, name: change(total.arrays[name])})
    with pytest.raises(ConsiliumError, match=rf"all sites together are refused: .*{said}"):
        refuse_inconsistent(wrong, form, 315)
