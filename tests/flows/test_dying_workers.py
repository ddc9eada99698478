"""Workers of sites of a consortium that die in a private run: what is spent, sent, and said."""

import os
import signal

import pytest

from federated.stages.worker import run_and_report
from flows import site_flow
from tests.flows.conftest import full_run
from tests.flows.test_private_round import DP_SGD, released

pytestmark = pytest.mark.usefixtures("prefect_server")
# On a busy machine too.
SITES = ("runner.name=sites", "runner.joining=900")
# Where the worker of a site is killed in round 2.
BEFORE_IT_IS_MADE, ONCE_IT_IS_STORED = "train_round", "write_packed"
WHERE = {"site-01": BEFORE_IT_IS_MADE, "site-02": ONCE_IT_IS_STORED}


def killed_in_round_2(stage, call, *arguments):
    """In place of ``run_and_report``: the workers of two sites are killed, each once.

    The release of the one has been entered in the ledger then, and not been made; that of the other
    one is stored at the site, and nobody was told of it.
    """
    from federated.stages import local_train

    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    mark = call.home / "killed"
    where = WHERE.get(call.site)
    if where and (stage.__name__, arguments) == ("train_site", (2,)) and not mark.exists():
        mark.touch()
        setattr(local_train, where, die)
    return run_and_report(stage, call, *arguments)


def test_no_release_is_lost_or_made_twice_by_a_worker_that_dies_in_a_private_run(
    consortium, monkeypatch
):
    parties = consortium()
    monkeypatch.setattr(site_flow, "run_and_report", killed_in_round_2)
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
