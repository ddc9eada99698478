"""On a machine with other users a run's folder is open to its owner alone."""

import os

import pytest

from federated.run.update_files import read_state
from federated.site.home import MEMORY_KINDS, WORK_KINDS
from tests.flows.conftest import kept_at, messages

pytestmark = pytest.mark.usefixtures("plainly", "in_process")

SETTINGS = {
    "plain": ["strategy.name=scaffold", "compression.bits=8"],
    "secagg_plus": [
        *("strategy.name=scaffold", "compression.bits=8", "protection.name=secagg_plus"),
        "runner.name=processes",
    ],
}


@pytest.fixture(params=[0o022, 0o000], ids=["022", "000"])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path):
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("protection", SETTINGS)
def test_whatever_a_site_writes_is_closed_while_the_round_lasts_and_after_it(
    run, umask, monkeypatch, protection
):
    import tasks.aggregate

    add, seen = tasks.aggregate.add_payloads, {}

    def look(coordinator, *told):
        added = add(coordinator, *told)
        for path in coordinator.folder.root.rglob("*"):
            seen[path] = (permissions(path), path.is_dir())
        return added

    monkeypatch.setattr(tasks.aggregate, "add_payloads", look)
    folder = run(overrides=SETTINGS[protection], rounds=1)
    assert permissions(folder.root) == 0o700
    kept = kept_at(folder, "site-00")
    own = [kept.work_path(1, kind) for kind in WORK_KINDS]
    own += [kept.memory_path(1, kind) for kind in MEMORY_KINDS]
    own += [kept.data_path, kept.plan_path, folder.home_path("site-00") / "identity.key"]
    own += [folder.coordinator_path / "identity.key", folder.state_path(0), folder.sum_path(1)]
    sent = [path for path in seen if path.suffix == ".message"]
    assert {"payload", "state", "run-plan"} <= {path.parts[-3] for path in sent}
    for path in [*own, *sent]:
        assert seen[path] == (0o600, False)
        assert seen[path.parent] == (0o700, True)
    assert all(mode == 0o700 for mode, is_folder in seen.values() if is_folder)
    told = messages(folder, "evaluation", 1)
    assert {permissions(path) for path in told} == {0o600}
    # What is made to be handed on is as the umask has it, once it is taken out of the folder.
    assert permissions(folder.summary_path) == permissions(folder.model_path) == 0o644


def test_a_run_that_others_can_open_is_closed_when_it_is_gone_on_with(run):
    folder = run(rounds=1)
    folder.root.chmod(0o755)
    run(resume=folder.run_id, rounds=2)
    assert permissions(folder.root) == 0o700
    assert read_state(folder.state_path(2)).round_number == 2
