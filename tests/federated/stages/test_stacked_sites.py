"""Sites that train in one call: what each leaves in its home and tells is what it is alone."""

import json
import time

import numpy as np
import pytest
import torch

from federated.errors import ConsiliumError
from federated.run.update_files import read_memory, read_update
from federated.site.holder import holder_ledger
from federated.stages import local_train, worker
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site, train_sites
from federated.stages.worker import run_together, site_cases
from federated.training import stacked
from tests.federated.staged_run import Staged, begin, small_experiment, small_images

SECTIONS = {
    "sites": {"count": 3, "partition": "iid", "min_cases": 2},
    "strategy": {"name": "scaffold"},
    "runner": {"name": "processes", "stacked_sites": 3},
    # Sums of so small a problem stay clear of what rounding decides.
    "training": {"lr": 0.02, "batch_size": 3, "device": "cpu", "optimizer": "sgd"},
}


@pytest.fixture
def started(tmp_path):
    def start(name: str, **sections: object) -> Staged:
        data = tmp_path / "data"
        if not data.exists():
            small_images(tmp_path)
        run = begin(small_experiment(data, **SECTIONS | sections), tmp_path / name)
        begin_round(run.coordinator, 1)
        return run

    return start


def files(run: Staged, site: str) -> set[str]:
    """The names of all that lies in a site's home, without the run's own name."""
    root = run.home(site).root
    return {
        str(path.relative_to(root)).replace(run.folder.run_id, "RUN") for path in root.rglob("*")
    }


def trained(run: Staged, site: str):
    store = run.store(site)
    return read_update(store.work_path(1, "update")), read_memory(store.memory_path(1))


def entered(run: Staged, site: str):
    """What stands of a site in the ledger of whoever holds the data: the round, and its noise."""
    spendings = holder_ledger(run.experiment).spendings(run.folder.run_id)
    return [(each.round_number, each.mechanism) for each in spendings if each.site == site]


def test_each_site_keeps_in_its_own_home_what_it_has_learned(started, monkeypatch):
    sizes = []
    taken = stacked.take_stacked
    monkeypatch.setattr(
        stacked, "take_stacked", lambda steps: sizes.append(len(steps)) or taken(steps)
    )
    alone, together = started("alone"), started("together")
    for site in alone.sites:
        train_site(alone.call(site), 1)
    assert sizes == []
    failed = run_together(train_sites, [together.call(site) for site in together.sites], 1)
    assert failed == {}
    assert sizes == [3, 3, 3]
    for site in alone.sites:
        (expected, kept), (found, own) = trained(alone, site), trained(together, site)
        assert (found.site, found.cases) == (site, expected.cases)
        assert np.abs(found.vector - expected.vector).max() <= 1e-5
        assert own.keys() == kept.keys()
        assert all(np.abs(own[name] - kept[name]).max() <= 1e-4 for name in kept)
        assert files(together, site) == files(alone, site)
        assert entered(together, site) == entered(alone, site) == [(1, "none")]


def test_times_of_sites_that_train_in_one_call_add_up_to_those_of_the_call(started):
    run = started("run")
    began = time.time()
    run_together(train_sites, [run.call(site) for site in run.sites], 1)
    ended = time.time()
    told = [json.loads(run.store(site).untold_path.read_text())[-1] for site in run.sites]
    assert sum(each["ended"] - each["started"] for each in told) == pytest.approx(
        ended - began, abs=0.05
    )


def test_a_site_that_fails_ends_no_other(started, monkeypatch):
    run = started("run")
    first, second, third = run.sites

    def cases(site, split):
        if site.name == second:
            raise ConsiliumError(f"{second} has no power.")
        return site_cases(site, split)

    monkeypatch.setattr(local_train, "site_cases", cases)
    failed = run_together(train_sites, [run.call(site) for site in run.sites], 1)
    assert failed == {second: f"{second} has no power."}
    made = [run.store(site).work_path(1, "update").is_file() for site in run.sites]
    assert made == [True, False, True]
    assert trained(run, third)[0].site == third
    assert trained(run, first)[0].site == first


def test_of_a_private_run_each_site_keeps_its_own_reason_to_itself(started, monkeypatch):
    run = started("run")
    first, second = run.sites[:2]
    monkeypatch.setattr(worker, "is_private", lambda call: True)
    run.store(second).data_path.write_text("jane-doe.nii.gz")
    failed = run_together(train_sites, [run.call(first), run.call(second)], 1)
    assert failed.keys() == {second}
    assert "the reason stays with the site" in failed[second]
    assert "cannot be read" not in failed[second]
    assert "cannot be read" in run.store(second).error_path.read_text()
    assert not run.store(first).error_path.exists()


def test_a_gpu_that_is_too_small_for_all_of_them_is_told_with_the_remedy(started, monkeypatch):
    run = started("run")

    def too_large(steps):
        raise torch.OutOfMemoryError("Tried to allocate 7 cases")

    monkeypatch.setattr(stacked, "take_stacked", too_large)
    failed = run_together(train_sites, [run.call(site) for site in run.sites], 1)
    assert failed.keys() == set(run.sites)
    for said in failed.values():
        assert "ran out at 3 sites, in train_sites" in said
        assert "less of runner.stacked_sites, runner.workers" in said


def test_a_site_of_a_private_run_does_not_train_with_others(started):
    run = started(
        "run",
        privacy={"name": "site_level", "clip": 1.0, "noise_multiplier": 1.0, "delta": 1e-3},
        strategy={"name": "fedavg"},
        runner={"name": "processes"},
    )
    failed = run_together(train_sites, [run.call(site) for site in run.sites], 1)
    assert failed.keys() == set(run.sites)
    assert all("trains alone in a private run" in said for said in failed.values())
    assert not run.store(run.sites[0]).work_path(1, "update").exists()
    assert not list(run.store(run.sites[0]).releases.glob("*"))
