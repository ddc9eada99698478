"""A run that goes on with another ledger would tell the epsilon of its last rounds alone."""

from dataclasses import replace

import pytest

from federated.errors import ConsiliumError
from federated.run.update_files import read_state, write_state
from federated.stages.privacy_report import report_site
from tests.federated.federation import SITE, begin, sent
from tests.federated.staged_run import record

pytestmark = pytest.mark.usefixtures("project")
PRIVATE = ["privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.delta=1e-3"]


def go_on(run):
    """Round 1 is done, with the state that it began with."""
    state = read_state(run.folder.state_path(0))
    write_state(run.folder.state_path(1), replace(state, round_number=1))
    record(run, 1, run.sites)


def test_no_round_is_released_where_the_rounds_before_are_not_in_the_ledger(tmp_path, monkeypatch):
    run = begin(*PRIVATE, "privacy.clip=1", "rounds=2")
    sent(run)
    go_on(run)
    monkeypatch.setenv("CONSILIUM_LEDGER", str(tmp_path / "another"))
    with pytest.raises(ConsiliumError, match="no entry for round 1"):
        sent(run, 2)


def test_with_its_own_it_goes_on_and_counts_both():
    run = begin(*PRIVATE, "privacy.clip=1", "rounds=2")
    sent(run)
    go_on(run)
    sent(run, 2)
    assert report_site(run.call(SITE))["steps"] == 2


def test_nor_where_the_run_goes_on_in_another_attempt(tmp_path, monkeypatch):
    """What the site has entered stands in its home, whatever the coordinator says."""
    run = begin(*PRIVATE, "privacy.clip=1", "rounds=2")
    sent(run)
    go_on(run)
    run.resume()
    monkeypatch.setenv("CONSILIUM_LEDGER", str(tmp_path / "another"))
    with pytest.raises(ConsiliumError, match="no entry for round 1"):
        sent(run, 2)
