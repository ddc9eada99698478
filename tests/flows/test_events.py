"""What Prefect is told of budgets and rounds, and what it can be told to do of that."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.events import utilities
from prefect.events.clients import AssertingEventsClient
from prefect.events.schemas.automations import AutomationCore
from prefect.events.worker import EventsWorker

from federated.errors import RefusalError
from federated.privacy.budget import _beyond, _refuse_evaluation, says_spent
from federated.privacy.spending import Budget, Spending
from flows.budget_events import LOW, SPENT, tell_if_low, tell_if_spent
from tasks.round_table import show_round
from tests.conftest import PROJECT

pytestmark = pytest.mark.usefixtures("prefect_server")

SPENDING = Spending("dp_sgd", "record", 1.0, 0.1, 5, 1.0, 3, "run", "organ", "site-01")
BUDGET = Budget("record", 8.0, 1e-5, evaluation="refuse")


@pytest.fixture
def emitted(monkeypatch) -> Iterator[list]:
    """Consilium's events of the test, which Prefect's client would have sent."""
    # The test server is sent none otherwise.
    monkeypatch.setattr(utilities, "should_emit_events", lambda: True)
    before = EventsWorker._client_override
    AssertingEventsClient.reset()
    EventsWorker.set_client_override(AssertingEventsClient)
    try:
        yield AssertingEventsClient.all
    finally:
        EventsWorker._client_override = before
        AssertingEventsClient.reset()


def consilium(clients: list) -> list:
    EventsWorker.instance().drain()
    events = [event for client in clients for event in client.events]
    return [event for event in events if event.event.startswith("consilium.")]


def test_a_refusal_for_a_budget_is_an_event_that_names_the_site_and_its_run(emitted):
    refusal = str(_beyond(BUDGET, SPENDING, 7.5, 8.5))

    @flow
    def a_run() -> bool:
        return tell_if_spent("site-01", "run", "organ", refusal)

    assert a_run()
    (event,) = consilium(emitted)
    assert (event.event, event.resource.id) == (SPENT, "consilium.site.site-01")
    assert event.payload == {"run": "run", "experiment": "organ", "said": refusal}
    # By which an automation finds the deployment that it is to pause.
    assert {each.role for each in event.related} >= {"flow", "flow-run"}


def test_other_refusals_are_no_such_event(emitted):
    told = SimpleNamespace(trained_on=frozenset)
    with pytest.raises(RefusalError) as caught:
        _refuse_evaluation(told, BUDGET, SPENDING, frozenset())
    for said in (str(caught.value), "site-01 is away: it was late in a round", ""):
        assert not says_spent(said)
        assert not tell_if_spent("site-01", "run", "organ", said)
    assert consilium(emitted) == []


def test_a_budget_of_which_less_than_a_fifth_is_left_is_low(emitted):
    reports = {
        "site-00": {"budget": 8.0, "epsilon_ledger": 6.5},
        "site-01": {"budget": 8.0, "epsilon_ledger": 6.3},
        "site-02": {"budget": None, "epsilon_ledger": 6.5},
        "site-03": {"budget": 8.0, "epsilon_ledger": None},
        "site-04": None,
        "site-05": {"epsilon_ledger": 6.5},
    }
    assert tell_if_low("run", "organ", reports) == ["site-00"]
    (event,) = consilium(emitted)
    assert (event.event, event.resource.id) == (LOW, "consilium.site.site-00")
    assert event.payload["share_left"] == pytest.approx(1.5 / 8)


def test_the_example_automations_are_taken_by_prefect():
    told = yaml.safe_load((PROJECT / "deploy" / "automations.yaml").read_text())["automations"]
    cores = [AutomationCore.model_validate(each) for each in told]

    async def create() -> list:
        async with get_client() as client:
            made = [await client.create_automation(core) for core in cores]
            found = [await client.read_automation(each) for each in made]
            for each in made:
                await client.delete_automation(each)
            return found

    found = asyncio.run(create())
    assert [each.name for each in found] == [each["name"] for each in told]
    expected = {name for each in found for name in each.trigger.expect}
    assert expected >= {SPENT, LOW, "prefect.flow-run.Failed"}


def test_no_example_automation_lets_a_sites_word_pause_everybodys_runs():
    told = yaml.safe_load((PROJECT / "deploy" / "automations.yaml").read_text())["automations"]
    by_word = [each for each in told if {SPENT, LOW} & set(each["trigger"]["expect"])]
    assert len(by_word) == 2
    for each in by_word:
        acts = [action["type"] for action in each["actions"] if action["type"] != "do-nothing"]
        assert not (each["enabled"] and acts), each["name"]


def test_a_round_is_a_table_among_the_artifacts_of_its_run():
    row = {"site": "site-00", "training cases": 8, "ε so far": 2.0}

    @flow
    def a_run() -> None:
        for number in (1, 2):
            show_round("Organ_3d", "run", number, [row])

    a_run()
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    mine = [each for each in found if each.key == "rounds-organ-3d"]
    assert len(mine) == 2
    assert all(each.type == "table" and "site-00" in str(each.data) for each in mine)
    assert all(each.flow_run_id for each in mine)


def test_a_table_that_prefect_does_not_take_stops_no_run(monkeypatch):
    def refuse(**_: object) -> None:
        raise OSError("Prefect is gone")

    monkeypatch.setattr("tasks.round_table.create_table_artifact", refuse)

    @flow
    def a_run() -> bool:
        show_round("organ", "run", 1, [])
        return True

    assert a_run()
