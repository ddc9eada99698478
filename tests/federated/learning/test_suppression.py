"""Small counts: what somebody can work out who sees what a site sends and knows how it decides.

The attack knows the rule, the site's number of cases, and which predictions a model makes, but not
of which case. It goes through all sites of a few cases, puts those together that would send the
same, and asks of every set of kinds of cases whether their number is the same in all of them. If it
is, and lies between 0 and the minimum, the attack has read a small count. Differences of tables and
totals, and what follows from a table being withheld, are in this with everything else.
"""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from federated.data.dataset import DatasetInfo
from federated.learning import CLASSIFICATION, MULTILABEL, REGRESSION, SEGMENTATION, shared_arrays
from federated.learning.suppression import LEAST_MINIMUM, Table, withheld
from federated.settings.sections import EvaluationSettings
from federated.settings.target import Target

BINARY = DatasetInfo("adrenalmnist3d", ("normal", "hyperplasia"), 3, 1, {}, "")
THREE = DatasetInfo("three", ("a", "b", "c"), 3, 1, {}, "")
LESION = DatasetInfo("kidney", ("background", "lesion"), 3, 1, {}, "", "segmentation")
FINDINGS = DatasetInfo("chest", ("mass", "nodule"), 2, 1, {}, "", "multilabel")
GRADES = DatasetInfo("grades", ("grade",), 2, 1, {}, "", "regression", Target(0, 3, whole=True))
SCORES = DatasetInfo("scores", ("score",), 2, 1, {}, "", "regression", Target(0, 2))

# Of a case the labels and their probabilities; and its grade, and that predicted.
FINDING_KINDS = [((1, 0), (0.9, 0.1)), ((1, 1), (0.9, 0.8)), ((0, 0), (0.2, 0.1))]
FINDING_KINDS += [((0, 1), (0.7, 0.2)), ((0, 0), (0.9, 0.1))]
# Two grades are no ends of the range.
GRADE_KINDS = [(0, 0.0), (0, 0.6), (1, 0.9), (2, 1.7), (2, 3.0), (3, 3.0)]
# Of a case the label and the predicted probabilities.
BINARY_KINDS = [(y, (1 - p, p)) for y, p in product((0, 1), (0.1, 0.4, 0.6, 0.95))]
THREE_KINDS = [
    (y, p)
    for y, p in product(
        (0, 1, 2), ((0.9, 0.06, 0.04), (0.1, 0.8, 0.1), (0.02, 0.01, 0.97), (0.45, 0.35, 0.2))
    )
]
# Of a case whether the lesion is absent, and Dice.
LESION_KINDS = [(True, 1.0), (True, 0.0), (False, 0.0), (False, 0.7)]


def classified(cases, classes):
    return {
        "labels": np.array([y for y, _ in cases], np.int64),
        "probabilities": np.array([p for _, p in cases], float).reshape(-1, classes),
    }


def labelled(cases):
    return {
        "labels": np.array([y for y, _ in cases], np.int64).reshape(-1, 2),
        "probabilities": np.array([p for _, p in cases], float).reshape(-1, 2),
    }


def numbered(cases):
    labels, predicted = np.array(cases, float).reshape(-1, 2).T
    return {"labels": labels, "predicted": predicted}


def segmented(cases):
    dice = np.array([[d] for _, d in cases], float).reshape(-1, 1)
    return {
        "dice": dice,
        "hd95": np.where(dice == 0, 300.0, 10 * (1 - dice)),
        "assd": np.where(dice == 0, 300.0, 10 * (1 - dice)),
        "absent": np.array([[a] for a, _ in cases], bool).reshape(-1, 1),
        "loss": 1 - dice[:, 0],
        "patients": np.arange(len(cases)),
    }


def sent_of(task, info, predictions, minimum, share="statistics"):
    settings = EvaluationSettings(share=share, min_count=minimum)
    return shared_arrays(task, predictions, info, settings)


def attack(kinds, most, minimum, sent):
    """The small counts that can be read: how often, of all sites of up to ``most`` cases.

    ``sent`` gives what a site of these cases sends, as something that can be compared.
    """
    worlds: list[tuple[int, ...]] = []
    seen: dict[object, list[int]] = {}
    for size in range(1, most + 1):
        for chosen in combinations_with_replacement(range(len(kinds)), size):
            seen.setdefault((size, sent([kinds[k] for k in chosen])), []).append(len(worlds))
            worlds.append(tuple(chosen.count(k) for k in range(len(kinds))))
    counts = np.array(worlds, np.int16)
    # All sets of kinds but the set of all, since the number of cases is known anyway.
    sets = np.array(list(product((0, 1), repeat=len(kinds)))[1:-1], np.int16)
    read = 0
    for group in seen.values():
        in_sets = counts[group] @ sets.T
        least, largest = in_sets.min(axis=0), in_sets.max(axis=0)
        # That a site has fewer cases in all is known anyway.
        if counts[group[0]].sum() >= minimum:
            read += int(((least == largest) & (least > 0) & (least < minimum)).sum())
    return read


def whole_numbers(arrays):
    return tuple((n, a.tobytes()) for n, a in sorted(arrays.items()) if a.dtype.kind != "f")


def everything(arrays):
    return tuple((n, np.round(a, 9).tobytes()) for n, a in sorted(arrays.items()))


@pytest.mark.parametrize(
    ("info", "kinds", "most", "minimum"),
    [(BINARY, BINARY_KINDS, 8, 3), (BINARY, BINARY_KINDS, 6, 4), (THREE, THREE_KINDS, 5, 3)],
    ids=["2 classes", "2 classes, minimum 4", "3 classes"],
)
def test_no_small_count_can_be_read_from_what_a_site_sends(info, kinds, most, minimum):
    def sent(cases):
        predictions = classified(cases, len(info.classes))
        return whole_numbers(sent_of(CLASSIFICATION, info, predictions, minimum))

    assert attack(kinds, most, minimum, sent) == 0


def test_nor_from_metrics_which_are_made_of_what_is_left():
    def sent(cases):
        predictions = classified(cases, 2)
        found = sent_of(CLASSIFICATION, BINARY, predictions, 3, "metrics")
        return everything({n: a for n, a in found.items() if n != "metric loss"})

    assert attack(BINARY_KINDS, 6, 3, sent) == 0


def test_nor_in_segmentation_where_even_sums_of_events_hide_them():
    def sent(cases):
        return everything(sent_of(SEGMENTATION, LESION, segmented(cases), 3))

    assert attack(LESION_KINDS, 9, 3, sent) == 0


def test_nor_of_several_labels_nor_of_combinations_of_them():
    def sent(cases):
        return whole_numbers(sent_of(MULTILABEL, FINDINGS, labelled(cases), 3))

    assert attack(FINDING_KINDS, 8, 3, sent) == 0


def test_nor_in_regression_where_sums_over_grades_are_counts():
    def sent(cases):
        found = sent_of(REGRESSION, GRADES, numbered(cases), 3)
        told = {name: found[name] for name in ("labels", "label_squares") if name in found}
        return everything({"cases": found["cases"], **told})

    assert attack(GRADE_KINDS, 6, 3, sent) == 0


def test_nor_at_the_ends_of_a_range_of_real_numbers():
    """Sums over other numbers are no counts, and are told of a few cases."""
    middle = [(0.3, 0.4), (0.9, 1.1), (1.5, 1.4)]
    assert "labels" in sent_of(REGRESSION, SCORES, numbered(middle), 3)
    for case in ((0.0, 0.4), (2.0, 1.1), (0.7, 0.0), (0.7, 2.0)):
        assert set(sent_of(REGRESSION, SCORES, numbered([*middle, case]), 3)) == {"cases"}
    assert set(sent_of(REGRESSION, SCORES, numbered(middle[:2]), 3)) == {"cases"}


def test_how_many_patients_have_two_cases_cannot_be_read_from_patients_and_cases():
    """Of 11 cases of 10 patients one has two."""
    predictions = segmented([(False, 0.7)] * 11)
    assert "patients" in sent_of(SEGMENTATION, LESION, predictions, 3)
    predictions["patients"] = np.array([*range(10), 9])
    assert set(sent_of(SEGMENTATION, LESION, predictions, 3)) == {"cases"}
    predictions["patients"] = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7])
    assert "patients" in sent_of(SEGMENTATION, LESION, predictions, 3)


def test_nothing_of_a_site_with_fewer_cases_but_how_many():
    for cases in ([], BINARY_KINDS[:2]):
        found = sent_of(CLASSIFICATION, BINARY, classified(cases, 2), 3)
        assert (set(found) == {"cases"}) == bool(cases)
        assert found["cases"] == len(cases)


# What would not do, and the attack finds it: so it is an attack.


def test_the_attack_reads_counts_that_nobody_withholds():
    def sent(cases):
        return whole_numbers(sent_of(CLASSIFICATION, BINARY, classified(cases, 2), 0))

    assert attack(BINARY_KINDS, 4, 3, sent) > 0


def test_the_attack_reads_counts_of_grades_and_labels_that_nobody_withholds():
    def grades(cases):
        found = sent_of(REGRESSION, GRADES, numbered(cases), 0)
        return everything({name: found[name] for name in ("cases", "labels", "label_squares")})

    def labels(cases):
        return whole_numbers(sent_of(MULTILABEL, FINDINGS, labelled(cases), 0))

    assert attack(GRADE_KINDS, 4, 3, grades) > 0
    assert attack(FINDING_KINDS, 4, 3, labels) > 0


def test_the_attack_reads_a_cell_from_its_total_where_it_alone_is_withheld():
    def sent(cases):
        found = sent_of(CLASSIFICATION, BINARY, classified(cases, 2), 0)
        cells = found["confusion"].ravel()
        return tuple(-1 if 0 < cell < 3 else int(cell) for cell in cells)

    assert attack(BINARY_KINDS, 5, 3, sent) > 0


def test_the_attack_reads_differences_of_two_tables_that_have_no_small_cell():
    """Of 4 predicted rightly 3 have a high score, and 4 do not: so 1 is right with a low score."""

    def sent(cases):
        found = sent_of(CLASSIFICATION, THREE, classified(cases, 3), 0)
        tables = {"confusion": found["confusion"], "scores of a": found["scores"][0]}
        large = {n: t for n, t in tables.items() if not ((t > 0) & (t < 3)).any()}
        return whole_numbers(large)

    kinds = [(0, (0.9, 0.06, 0.04)), (0, (0.45, 0.35, 0.2)), (0, (0.45, 0.5, 0.05))]
    assert attack(kinds, 8, 3, sent) > 0


def test_the_attack_reads_that_one_is_missing_where_the_minimum_is_two():
    def sent(cases):
        return whole_numbers(sent_of(CLASSIFICATION, BINARY, classified(cases, 2), 2))

    assert attack(BINARY_KINDS, 4, 2, sent) > 0
    assert LEAST_MINIMUM == 3


def test_a_table_is_told_with_those_before_it_or_not_at_all():
    one, other = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 1, 1, 1])
    tables = [Table(("one",), one), Table(("other", "sum"), other)]
    # Groups of 2, 1 and 3.
    assert withheld(tables, 3) == {"other", "sum"}
    assert withheld(tables[::-1], 3) == {"other", "sum"}
    assert withheld(tables[:1], 3) == withheld(tables, 0) == frozenset()


def test_who_knows_that_a_model_predicts_two_values_can_divide_a_sum_of_losses_up():
    """The limit of it: sums of real numbers are not counts, and tell these two apart."""
    sums = []
    for sure in (1, 2):
        cases = [(1, (0.05, 0.95))] * sure + [(1, (0.4, 0.6))] * (4 - sure)
        found = sent_of(CLASSIFICATION, BINARY, classified(cases, 2), 3)
        assert "scores" not in found
        sums.append(found["loss"][0])
    assert sums[0] != sums[1]
