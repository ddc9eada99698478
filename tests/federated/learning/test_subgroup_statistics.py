"""Subgroups by sums over sites: those of the predictions themselves, and nothing impossible."""

from functools import partial

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.learning import TASKS
from federated.learning.final_task import final_task
from federated.learning.statistics import from_wire, to_wire
from federated.learning.subgroup_statistics import (
    final_contradictions,
    final_of,
    final_over_sites,
)
from federated.settings.sections import EvaluationSettings
from tests.federated.report.made_runs import info_of, predictions

GROUPS = {"sex": ("F", "M"), "age": (40.0,)}
CLASSES = {
    "classification": ("healthy", "ill"),
    "multilabel": ("nodule", "mass", "effusion"),
    "regression": ("grade",),
    "segmentation": ("background", "vessel"),
}
SITES = {"north": 60, "south": 45, "empty": 0}


def asked(task, minimum=0):
    settings = EvaluationSettings(subgroups=GROUPS, min_count=minimum)
    return final_task(info_of(task, CLASSES[task]), settings)


def made(task, rng, cases):
    found = predictions(info_of(task, CLASSES[task]), cases, rng, 0.5)
    if task == "segmentation":
        found["patients"] = np.arange(cases)
    places = {name: rng.integers(0, 3, cases) for name in GROUPS}
    return found, places


def of_sites(task):
    rng = np.random.default_rng(3)
    return {site: made(task, rng, cases) for site, cases in SITES.items()}


@pytest.mark.parametrize("task", CLASSES)
def test_metrics_of_a_group_are_those_of_its_cases_at_all_sites_together(task):
    what, sites = asked(task), of_sites(task)
    sent = {
        site: from_wire(to_wire(final_of(what, *own)), what.form, site)
        for site, own in sites.items()
    }
    for told in sent.values():
        assert list(final_contradictions(what, told)) == []
    found = final_over_sites(what, sent)
    exact = partial(TASKS[task].exact, info=what.info)
    for attribute in GROUPS:
        for place, group in enumerate(found.groups[attribute]):
            chosen = [(p, q[attribute] == place) for p, q in sites.values()]
            pooled = {
                name: np.concatenate([p[name][c] for p, c in chosen]) for name in chosen[0][0]
            }
            if task == "segmentation":
                pooled["patients"] = np.arange(len(pooled["loss"]))
            assert group.statistics.cases == sum(c.sum() for _, c in chosen)
            wanted = exact(pooled)
            for name, value in group.measured.metrics.items():
                if name == "auc":
                    low, high = group.measured.intervals["auc"]
                    assert low <= wanted["auc"] <= high
                    assert value == pytest.approx(wanted["auc"], abs=0.02)
                elif value is not None:
                    assert value == pytest.approx(wanted[name]), (attribute, group.name, name)
            assert group.told_by == tuple(SITES)


def test_a_group_that_a_site_hides_is_of_the_others_and_says_so():
    what = asked("regression", 3)
    rng = np.random.default_rng(0)
    own, places = made("regression", rng, 20)
    places = {"sex": np.repeat([0, 1, 2], [9, 10, 1]), "age": np.zeros(20, np.int64)}
    other, _ = made("regression", rng, 12)
    elsewhere = {"sex": np.repeat([0, 1], 6), "age": np.zeros(12, np.int64)}
    sent = {"a": final_of(what, own, places), "b": final_of(what, other, elsewhere)}
    assert sent["a"].arrays["sex.told"].tolist() == [1, 0, 0]
    assert sent["a"].arrays["sex.cases"].tolist() == [9, 0, 0]
    groups = final_over_sites(what, sent).groups["sex"]
    assert [g.statistics.cases for g in groups] == [15, 6, 0]
    assert [g.hidden_by for g in groups] == [(), ("a",), ("a",)]
    assert final_over_sites(what, {"a": sent["a"]}).groups["sex"][1].statistics is None


def test_what_is_sent_has_one_form_whatever_the_cases():
    what = asked("classification")
    sizes = set()
    for seed, cases in ((1, 5), (2, 60), (3, 0)):
        arrays = to_wire(
            final_of(what, *made("classification", np.random.default_rng(seed), cases))
        )
        sizes.add(
            tuple((name, each.shape, str(each.dtype)) for name, each in sorted(arrays.items()))
        )
    assert len(sizes) == 1
    assert set(dict.fromkeys(what.form)) == {name for name, *_ in next(iter(sizes))}


def lie(name, change):
    """What a site has sent, but for one array."""

    def told(arrays):
        return {**arrays, name: change(arrays[name].copy())}

    return told


def moved(array):
    """One case of the first group is said to be of the second."""
    array[0] -= 1
    array[1] += 1
    return array


LIES = {
    "more cases in groups than there are": lie("sex.cases", lambda a: a + 1),
    "fewer cases in groups than there are": lie("sex.cases", lambda a: a - 1),
    "a case in another group": lie("sex.cases", moved),
    "another total": lie("cases", lambda a: a + 1),
    "answers of nobody": lie("age.outcomes", lambda a: a * 2),
    "classes of nobody": lie("sex.confusion", lambda a: a[:, ::-1]),
    "a class of another group": lie("sex.confusion", lambda a: a[::-1]),
    "scores of nobody": lie("sex.coarse_scores", np.zeros_like),
    "scores of the other class": lie("sex.coarse_scores", lambda a: a[:, :, ::-1]),
    "no loss in a group": lie("sex.loss", np.zeros_like),
    "endless losses": lie("sex.loss", lambda a: a + 1e9),
    "what is no number": lie("sex.loss", lambda a: a * np.nan),
    "counts below 0": lie("sex.cases", lambda a: -a),
    "a hidden group, and nothing may be": lie("sex.told", lambda a: a * 0),
    "groups told twice": lie("sex.told", lambda a: a * 2),
    "another number of groups": lie("sex.cases", lambda a: a[:2]),
    "an attribute that is left out": lambda a: {n: x for n, x in a.items() if "age" not in n},
    "an array that is left out": lambda a: {n: x for n, x in a.items() if n != "sex.loss"},
    "an array that nobody asked for": lambda a: {**a, "name.told": np.zeros(3, np.int32)},
}


@pytest.mark.parametrize("name", LIES)
def test_what_a_site_cannot_have_is_refused(name):
    what = asked("classification")
    honest = to_wire(final_of(what, *made("classification", np.random.default_rng(5), 50)))
    assert list(final_contradictions(what, from_wire(honest, what.form, "a site"))) == []
    try:
        told = from_wire(LIES[name](dict(honest)), what.form, "a site")
    except ConsiliumError:
        return
    assert list(final_contradictions(what, told))


def test_groups_that_are_told_or_left_too_small_are_refused():
    what = asked("classification", 3)
    own, _ = made("classification", np.random.default_rng(5), 50)
    places = {"sex": np.repeat([0, 1], [48, 2]), "age": np.zeros(50, np.int64)}
    told = final_of(asked("classification"), own, places)
    assert any("fewer than 3" in said for said in final_contradictions(what, told))
