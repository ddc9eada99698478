"""Workers of sites of a consortium that die in a private run: what is spent, sent, and said."""

import pytest

from flows import site_flow
from tests.flows.conftest import full_run
from tests.flows.killing import WHERE, within_a_private_round_2
from tests.flows.test_private_round import DP_SGD, released

pytestmark = pytest.mark.usefixtures("prefect_server")
# On a busy machine too.
SITES = ("runner.name=sites", "runner.joining=900")


def test_no_release_is_lost_or_made_twice_by_a_worker_that_dies_in_a_private_run(
    consortium, monkeypatch
):
    parties = consortium()
    monkeypatch.setattr(site_flow, "run_and_report", within_a_private_round_2)
    folder = full_run(overrides=[*DP_SGD, *SITES], rounds=3, register_model=False)
    first, second, third = folder.records()
    assert all(
        (party.home.root / "killed").exists()
        for party in parties.values()
        if party.home.name in WHERE
    )
    # What was stored is sent by another worker; what was not made costs the site the round.
    assert first["sites"] == third["sites"] == ["site-00", "site-01", "site-02"]
    assert second["sites"] == ["site-00", "site-02"]
    # Each is entered once: also that which was never made counts as spent.
    for site in parties:
        assert [entry.round_number for entry in released(site)] == [1, 2, 3]
    made = {
        site: (party.home.run(folder.run_id).releases / "released.jsonl")
        .read_text()
        .count('"update"')
        for site, party in parties.items()
    }
    assert made == {"site-00": 3, "site-01": 2, "site-02": 3}
    # Others are told no more than that it failed; why stands at the site.
    told = second["dropped"]["site-01"]
    assert "The run is private, so the reason stays with the site" in told
    assert "died" not in told
    kept = parties["site-01"].home.run(folder.run_id).error_path.read_text()
    assert "The worker of site-01 died in train_site" in kept
