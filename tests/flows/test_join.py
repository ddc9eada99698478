"""A new site joins a finished federation."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.update import Layout
from federated.weights.model_file import load_model
from flows.going_on import how_to_go_on, nothing_begun
from flows.join import fl_join
from tasks import track
from tasks.registered_model import registered_weights
from tests.conftest import tiny_pictures
from tests.flows.conftest import weights

pytestmark = pytest.mark.usefixtures("plainly", "in_process")


@pytest.fixture
def clinic(project):
    """Data of a hospital that was not part of the federation."""
    path = project / "clinic" / "medmnist" / "bloodmnist.npz"
    path.parent.mkdir(parents=True)
    np.savez(path, **tiny_pictures(seed=5))
    return project / "clinic"


def joined(folder, clinic, **given):
    return Path(fl_join("tiny", "clinic-x", str(clinic), runs=str(folder.root.parents[1]), **given))


def values(path):
    model = load_model(path)
    return Layout.of(model).flatten(model)


@pytest.mark.usefixtures("prefect_server")
def test_it_takes_the_common_part_trains_its_own_and_is_registered(run, clinic):
    folder = run(overrides=["strategy.name=resfim", "strategy.rho=0.2", "selection.keep=last"])
    place = joined(folder, clinic, rounds=2)
    assert place == folder.root / "joined" / "clinic-x"
    summary = json.loads((place / "summary.json").read_text())
    assert summary["moved"] == pytest.approx(0.2, abs=0.01)
    moved = (values(place / "model.safetensors") != weights(folder)).mean()
    assert 0.1 < moved <= summary["moved"]
    assert summary["cases"] == {"train": 48, "val": 16, "test": 24}
    for when in ("before", "after"):
        assert 0 <= summary[when]["test"]["auc"] <= 1
    assert summary["after"]["val"]["loss"] < summary["before"]["val"]["loss"]
    path = registered_weights("tiny.clinic-x@champion").path
    np.testing.assert_array_equal(values(path), values(place / "model.safetensors"))
    (found,) = track.client().search_runs(
        [track.experiment_id(track.client(), "tiny")], "tags.joined = 'clinic-x'"
    )
    assert found.data.metrics["joined/moved"] == summary["moved"]


def test_what_joins_a_private_federation_tells_no_digest_of_its_data(run, clinic):
    private = ["privacy.name=dp_sgd", "privacy.noise_multiplier=1", "model.norm=group"]
    folder = run(overrides=private, rounds=1)
    place = joined(folder, clinic, rounds=1)
    assert json.loads((place / "summary.json").read_text())["data_md5"] is None
    (found,) = track.client().search_runs(
        [track.experiment_id(track.client(), "tiny")], "tags.joined = 'clinic-x'"
    )
    assert found.data.tags["data_md5"] == "not told"
    digest = json.loads((place / "inputs.json").read_text())["md5"]
    told = [path for path in place.rglob("*") if path.is_file() and path.name != "inputs.json"]
    told = [path for path in told if not path.is_relative_to(place / "sites")]
    assert {".json", ".message", ".jsonl"} <= {path.suffix for path in told}
    assert not [path for path in told if digest.encode() in path.read_bytes()]
    # The site itself knows where its data are, by a file that is closed to others.
    (own,) = (place / "sites").rglob("data.json")
    assert own.stat().st_mode & 0o077 == 0


def test_of_fedper_only_the_head_moves_and_of_fedavg_everything(run, clinic):
    for strategy, names in (("fedper", {"head.weight", "head.bias"}), ("fedavg", None)):
        folder = run(rounds=1, overrides=[f"strategy.name={strategy}"])
        place = joined(folder, clinic, rounds=1, register_model=False)
        model = load_model(place / "model.safetensors")
        layout = Layout.of(model)
        changed = layout.split(layout.flatten(model) != weights(folder))
        moved = {name for name, part in changed.items() if part.any()}
        assert moved == (names or set(model.state_dict()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"site": "site-00"}, "is one of the sites of run"),
        ({"site": "a/b"}, "cannot be a site's name"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_join_is_refused(known, clinic, given, said):
    folder = known(1)
    call = {"site": "clinic-x", "data": str(clinic), "runs": str(folder.root.parents[1])} | given
    with pytest.raises(ConsiliumError, match=said):
        fl_join("tiny", **call)


def test_the_federations_own_data_do_not_stand_in_for_missing_ones(known, project, monkeypatch):
    folder = known(1)
    monkeypatch.setenv("CONSILIUM_DATA", str(project / "data"))
    (project / "empty").mkdir()
    with pytest.raises(ConsiliumError, match="where the joining site's data are to be"):
        joined(folder, project / "empty")


def test_a_site_that_is_stopped_while_it_joins_says_what_is_kept_and_how_to_go_on(
    known, clinic, monkeypatch
):
    def stopped(*_):
        raise KeyboardInterrupt

    folder = known(1)
    nothing_begun()
    monkeypatch.setattr("flows.join.validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        joined(folder, clinic, rounds=3)
    said = how_to_go_on()
    nothing_begun()
    assert said.startswith("The run that is joined is as it was")
    words = shlex.split(said.split("with: ")[1])
    options = ["--site", "clinic-x", "--data", str(clinic), "--run", folder.run_id, "--rounds", "3"]
    runs = ["--runs", str(folder.root.parents[1])]
    assert words == ["consilium", "sites", "join", "tiny", *options, *runs]


def test_a_run_that_is_not_finished_has_nothing_to_join(run, clinic):
    folder = run(rounds=1)
    folder.summary_path.unlink()
    with pytest.raises(ConsiliumError, match=r"is not finished.*consilium resume tiny"):
        joined(folder, clinic)


def test_sites_that_learned_alone_have_nothing_to_join(run, clinic):
    folder = run(rounds=1, overrides=["strategy.name=local"])
    with pytest.raises(ConsiliumError, match="there is nothing to join"):
        joined(folder, clinic)
