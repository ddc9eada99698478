"""Every protection adds the statistics of sites, and gives the metrics of all cases together."""

import numpy as np
import pytest

from federated.data.dataset import DatasetInfo
from federated.errors import ConsiliumError
from federated.learning import CLASSIFICATION, SEGMENTATION
from federated.learning.quantised_statistics import (
    BITS,
    STEP,
    quantise_statistics,
    quantised_length,
    summed_statistics,
)
from federated.learning.statistics import EvaluationStatistics, add
from federated.protection import CKKS, PackedBFV, Plain
from tests.federated.learning.test_statistics import SCANS, classified, segmented
from tests.federated.protection.masked_round import SITES, begin
from tests.federated.protection.test_protection import key_for, summed, update

ORGANS = DatasetInfo("organmnist3d", tuple("abcde"), 3, 1, {}, "")
TASKS = pytest.mark.parametrize(
    ("task", "info"),
    [(CLASSIFICATION, ORGANS), (SEGMENTATION, SCANS)],
    ids=["classes", "masks"],
)


def statistics_of(task, info, sites=6):
    predict = classified if task is CLASSIFICATION else segmented
    return [task.statistics.of(predict(site, 50 + site), info) for site in range(sites)]


def by_encryption(protection):
    def total(vectors):
        key = key_for(protection, len(vectors[0]), len(vectors), BITS)
        return summed(protection, [update(each) for each in vectors], key)[0]

    return total


def in_the_clear(vectors):
    return summed(Plain(), [update(each) for each in vectors])[0]


def by_masks(vectors):
    parties = begin(bits=32)
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


@TASKS
@pytest.mark.parametrize("name", PROTECTIONS)
def test_every_protection_adds_them(task, info, name):
    kind, parts = task.statistics, statistics_of(task, info)
    form = kind.form(info)
    vectors = [quantise_statistics(part, form) for part in parts]
    assert {each.shape for each in vectors} == {(quantised_length(form),)}
    assert min(each.min() for each in vectors) >= 0
    assert max(each.max() for each in vectors) < 2 ** (BITS - 1)
    found = summed_statistics(PROTECTIONS[name](vectors), form)
    expected = add(parts, form)
    for key, part in form.items():
        tolerance = len(parts) * STEP if part.real else 0
        np.testing.assert_allclose(found.arrays[key], expected.arrays[key], rtol=0, atol=tolerance)
    exact = kind.measure(expected, info).metrics
    for key, value in kind.measure(found, info).metrics.items():
        assert value == pytest.approx(exact[key], abs=1e-3 if key.endswith("_sd") else 1e-6)


@TASKS
def test_what_one_site_withholds_the_sum_withholds(task, info):
    form = task.statistics.form(info)
    name = "scores" if task is CLASSIFICATION else "sums"
    one, *others = statistics_of(task, info)
    vectors = [quantise_statistics(each, form) for each in (one.without([name]), *others)]
    found = summed_statistics(in_the_clear(vectors), form)
    assert found.withheld == {name}
    assert name not in found.arrays


def test_a_number_without_room_is_refused():
    form = CLASSIFICATION.statistics.form(ORGANS)
    (one,) = statistics_of(CLASSIFICATION, ORGANS, 1)
    large = EvaluationStatistics({**one.arrays, "loss": np.array([2.0**41])})
    with pytest.raises(ConsiliumError, match=r"2\.19902e\+12 in 'loss'"):
        quantise_statistics(large, form)


def test_a_sum_of_another_length_is_refused():
    with pytest.raises(ValueError, match="values"):
        summed_statistics(np.zeros(3), CLASSIFICATION.statistics.form(ORGANS))
