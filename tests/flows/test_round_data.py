"""What data a run takes: those that were checked, made ready with its settings, and no others."""

import gc
import json
import weakref

import pytest

import flows.round as flow_round
import tasks.aggregate
from federated.errors import ConsiliumError
from federated.run.runs import latest_run
from flows.prepare import fl_prepare
from tests.conftest import tiny_pictures
from tests.flows.conftest import contents, full_run

pytestmark = pytest.mark.usefixtures("plainly")

SITE_LEVEL = ["privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1"]


@pytest.mark.usefixtures("prefect_server")
def test_a_site_whose_data_fail_can_be_left_out(project, write_npz):
    arrays = tiny_pictures()
    arrays["train_images"][0] = 7
    write_npz(arrays)
    with pytest.raises(ConsiliumError, match="not constant"):
        full_run()
    folder = full_run(overrides=["validate.on_failure=exclude-site"])
    summary = json.loads(folder.summary_path.read_text())
    assert len(summary["sites"]) == 2


@pytest.mark.usefixtures("prefect_server")
def test_a_preparation_that_failed_is_not_gone_on_from(project, write_npz):
    arrays = tiny_pictures()
    arrays["train_images"][0] = 7
    write_npz(arrays)
    with pytest.raises(ConsiliumError, match="not constant"):
        fl_prepare("tiny")
    with pytest.raises(ConsiliumError, match=r"failed validation .*prepare it again"):
        full_run(prepared="data/prepared/tiny")
    fl_prepare("tiny", ["validate.on_failure=exclude-site"])
    assert full_run(prepared="data/prepared/tiny", rounds=1).summary_path.is_file()


def test_a_folder_prepared_with_other_settings_is_refused(run):
    with pytest.raises(ConsiliumError, match=r"seed was 0 and is 1 now; sites\.beta was 0\.5"):
        run(overrides=["seed=1", "sites.beta=0.1"])
    run(rounds=1, overrides=["sites.participation=0.5"])


def test_other_data_are_not_mixed_into_a_run(project, write_npz):
    full_run(rounds=1)
    write_npz(tiny_pictures(seed=1))
    with pytest.raises(ConsiliumError, match="has changed since run"):
        full_run(resume="latest", rounds=2)


def test_other_data_are_not_mixed_into_a_run_that_broke_off_in_its_first_round(
    project, write_npz, monkeypatch
):
    """A site may have sent something of the data that were there before."""

    def fail(*_):
        raise ConsiliumError("The coordinator has no power.")

    with monkeypatch.context() as broken:
        broken.setattr(tasks.aggregate, "add_payloads", fail)
        with pytest.raises(ConsiliumError, match="no power"):
            full_run(overrides=SITE_LEVEL)
    folder = latest_run(project / "runs", "tiny")
    assert folder.done_rounds() == 0
    before = contents(folder)
    write_npz(tiny_pictures(seed=1))
    with pytest.raises(ConsiliumError, match=f"has changed since run {folder.run_id} began"):
        full_run(resume="latest")
    assert before == contents(folder)
    write_npz()
    assert full_run(resume="latest").done_rounds() == 2


def test_the_cases_of_all_sites_are_not_held_while_rounds_are_run(run, monkeypatch):
    """They may be gigabytes, and each site has its own."""
    prepare, run_round, held, seen = flow_round._inputs, flow_round.run_round, [], []

    def prepared(*arguments):
        inputs = prepare(*arguments)
        held.extend([weakref.ref(inputs), weakref.ref(inputs.dataset.images["train"])])
        return inputs

    def watched(*arguments):
        gc.collect()
        seen.append([each() is None for each in held])
        return run_round(*arguments)

    monkeypatch.setattr(flow_round, "_inputs", prepared)
    monkeypatch.setattr(flow_round, "run_round", watched)
    run(rounds=1)
    assert seen == [[True, True]]
