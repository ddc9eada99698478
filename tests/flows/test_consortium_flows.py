"""What a coordinator deploys is of the consortium's sites, whatever else is asked of it."""

from functools import wraps
from inspect import signature

import pytest
from prefect.flows import load_flow_from_entrypoint

from federated.errors import ConsiliumError
from flows.consortium_flows import fl_round_of_sites, fl_statistics_of_sites, of_sites
from flows.round import fl_round
from flows.serve import deployments
from flows.site_statistics import fl_statistics

PAIRS = [(fl_round_of_sites, fl_round), (fl_statistics_of_sites, fl_statistics)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ["runner.name=sites"]),
        (["rounds=3"], ["runner.name=sites", "rounds=3"]),
        (["runner.deadline=60"], ["runner.name=sites", "runner.deadline=60"]),
        (["runner.name=serial", "rounds=3"], ["runner.name=serial", "rounds=3"]),
        (["runner={name: processes}"], ["runner={name: processes}"]),
        (["runner=null"], ["runner=null"]),
    ],
)
def test_other_overrides_do_not_make_a_simulation_of_it(given, expected):
    assert of_sites(given) == expected
    with pytest.raises(ConsiliumError, match=r"section\.key=value"):
        of_sites([*given, "rounds"])


@pytest.mark.parametrize(("of_consortium", "here"), PAIRS)
def test_they_take_and_hand_on_what_the_flows_of_one_machine_take(of_consortium, here, monkeypatch):
    assert of_consortium.parameters == here.parameters
    taken = []

    @wraps(here.fn)
    def begin(*given, **named):
        taken.append(signature(here.fn).bind(*given, **named).arguments)
        return "folder"

    monkeypatch.setattr(here, "fn", begin)
    given = {name: name for name in here.parameters.properties if name != "overrides"}
    assert of_consortium.fn(**given, overrides=["rounds=3"]) == "folder"
    assert of_consortium.fn("organ") == "folder"
    assert taken == [
        given | {"overrides": ["runner.name=sites", "rounds=3"]},
        {"experiment": "organ", "overrides": ["runner.name=sites"]},
    ]


def test_prefect_finds_them_by_their_names():
    served = deployments([each for each, _ in PAIRS], ["organ"], {"params": "mine.yaml"})
    assert [each.flow_name for each in served] == ["fl-round", "fl-statistics"]
    for each, (flow, _) in zip(served, PAIRS, strict=True):
        assert load_flow_from_entrypoint(each.entrypoint).fn is flow.fn
