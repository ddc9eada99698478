"""What fl-round is asked for, before anything of it is done."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from flows.request import RunRequest


@pytest.fixture
def request_(project):
    return RunRequest("tiny", ["rounds=5"], runs=Path("runs"))


def test_a_new_run_has_a_folder_only_once_it_is_opened(request_):
    assert request_.resolve().rounds == 5
    assert not Path("runs").exists()
    folder, experiment = request_.open()
    assert folder.experiment() == experiment
    assert experiment.rounds == 5


def test_its_own_number_of_rounds_goes_before_that_of_the_overrides(request_):
    assert replace(request_, rounds=3).resolve().rounds == 3


def test_a_run_to_go_on_with_has_the_configuration_that_it_was_begun_with(request_):
    folder, experiment = request_.open()
    again = RunRequest("tiny", resume=folder.run_id, runs=Path("runs"))
    assert again.open() == (folder, experiment)
    assert replace(again, rounds=7).resolve().rounds == 7


@pytest.mark.parametrize("run_id", ["", "20200101-000000-abcd"])
def test_a_run_that_is_not_there_is_refused_and_none_is_begun(request_, run_id):
    with pytest.raises(ConsiliumError):
        replace(request_, resume=run_id).open()
    with pytest.raises(ConsiliumError):
        replace(request_, resume=run_id).resolve()
    assert not Path("runs").exists()


@pytest.mark.parametrize("damage", ["nowhere", "without data", "for other settings"])
def test_a_prepared_folder_that_cannot_be_used_is_refused_and_no_run_is_begun(
    request_, prepared_tiny, tmp_path, damage
):
    place = tmp_path / "prepared-copy"
    if damage != "nowhere":
        shutil.copytree(prepared_tiny, place)
    if damage == "without data":
        next((place / "dataset").glob("*.npz")).unlink()
    items = ["sites.count=4"] if damage == "for other settings" else []
    asked = replace(request_, prepared=place, overrides=items)
    for ask in (asked.resolve, asked.open):
        with pytest.raises(ConsiliumError, match="prepared folder"):
            ask()
    assert not Path("runs").exists()
    assert replace(request_, prepared=Path(prepared_tiny)).resolve().rounds == 5
