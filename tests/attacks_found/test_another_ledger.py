"""A run that goes on with another ledger would tell the epsilon of its last rounds alone."""

from dataclasses import replace

import pytest

from federated.errors import ConsiliumError
from federated.files import write_json
from federated.run.update_files import read_state, write_state
from federated.stages.local_train import train_site
from federated.stages.privacy_report import report_site
from federated.stages.worker import worker_context
from tests.federated.federation import SITE, begin

pytestmark = pytest.mark.usefixtures("project")
PRIVATE = ["privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.delta=1e-3"]


def go_on(folder):
    """Round 1 is done, with the state that it began with."""
    state = read_state(folder.state_path(0))
    write_state(folder.state_path(1), replace(state, round_number=1))
    write_json(folder.record_path(1), {"round": 1, "sites": folder.sites()})
    worker_context.cache_clear()


def test_no_round_is_released_where_the_rounds_before_are_not_in_the_ledger(tmp_path, monkeypatch):
    folder = begin(*PRIVATE, "privacy.clip=1", "rounds=2")
    train_site(folder.root, SITE, 1)
    go_on(folder)
    monkeypatch.setenv("CONSILIUM_LEDGER", str(tmp_path / "another"))
    with pytest.raises(ConsiliumError, match="no entry for round 1"):
        train_site(folder.root, SITE, 2)


def test_with_its_own_it_goes_on_and_counts_both():
    folder = begin(*PRIVATE, "privacy.clip=1", "rounds=2")
    train_site(folder.root, SITE, 1)
    go_on(folder)
    train_site(folder.root, SITE, 2)
    assert report_site(folder.root, SITE)["steps"] == 2
