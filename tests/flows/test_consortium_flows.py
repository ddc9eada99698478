"""What a coordinator deploys is of the consortium's sites, whatever else is asked of it."""

import inspect

import pytest
from prefect.flows import load_flow_from_entrypoint

from federated.errors import ConsiliumError
from flows import consortium_flows
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
def test_they_take_what_the_flows_of_one_machine_take(of_consortium, here, monkeypatch):
    taken = inspect.signature(of_consortium.fn).parameters
    all_known = inspect.signature(here.fn).parameters
    # Data that are prepared at the coordinator are no site's.
    assert set(all_known) - set(taken) <= {"prepared"}
    asked = {}

    def ask(*values):
        asked.update(zip(all_known, values, strict=True))
        return "folder"

    monkeypatch.setattr(getattr(consortium_flows, here.fn.__name__), "fn", ask)
    given = {name: name for name in taken if name != "overrides"}
    assert of_consortium.fn(**given, overrides=["rounds=3"]) == "folder"
    # Each value is handed on as what it is.
    known = {"prepared": None, "overrides": ["runner.name=sites", "rounds=3"]}
    assert asked == {name: known.get(name, name) for name in all_known}


def test_prefect_finds_them_by_their_names():
    served = deployments([each for each, _ in PAIRS], ["organ"], {"params": "mine.yaml"})
    assert [each.flow_name for each in served] == ["fl-round", "fl-statistics"]
    for each, (flow, _) in zip(served, PAIRS, strict=True):
        assert load_flow_from_entrypoint(each.entrypoint).fn is flow.fn
