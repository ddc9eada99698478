"""fl-compare and pretraining on a tiny data set, against Prefect's test server."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError
from flows.compare import describe_command, fl_compare
from flows.pretrain import pretrain
from flows.request import RunRequest
from flows.round import fl_round
from tasks import track
from tests.conftest import TINY_PARAMS
from tests.described_sets import CLASSES, describe, picture_set
from tests.federated.report.reading import at, read

pytestmark = pytest.mark.usefixtures("plainly")

QUICK = ["rounds=1"]


@pytest.fixture
def with_backbone(project):
    params = {
        **TINY_PARAMS,
        "pretraining": {"cubes": {"experiment": "tiny", "rounds": 1}},
        "transfer": {"tiny": {"backbone": "cubes", "training": {"freeze_rounds": 1}}},
    }
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    return project


def runs_of(project: Path) -> list[str]:
    folders = (project / "runs" / "tiny").glob("2*")
    return sorted(folder.name for folder in folders if not folder.is_symlink())


def test_a_comparison_makes_every_run_once_and_tells_what_it_found(project):
    labels = ["fedavg", "fedprox:mu=0.5"]
    folder = Path(fl_compare("tiny", labels, 2, QUICK))
    document = json.loads((folder / "runs.json").read_text())
    assert [row["label"] for row in document["rows"]] == labels
    assert [(run["label"], run["seed"]) for run in document["runs"]] == [
        (label, seed) for seed in (0, 1) for label in labels
    ]
    fedavg, fedprox = document["rows"]
    aucs = [c["metrics"]["test"]["auc"] for c in document["runs"] if c["label"] == "fedavg"]
    assert fedavg["auc"]["mean"] == pytest.approx(sum(aucs) / 2)
    assert fedavg["p"] is None
    assert fedprox["difference"] is not None
    table = (folder / "table.md").read_text()
    assert table.startswith(
        "`consilium compare tiny --strategies fedavg,fedprox:mu=0.5 --seeds 2 --set rounds=1`"
    )
    assert "Data source: files. Seeds 0, 1" in table
    assert (folder / "auc.png").read_bytes().startswith(b"\x89PNG")
    shown = read((folder / "report.html").read_text()).named("data")
    assert "/rows/1/difference" in {element.attributes["data-at"] for element in shown}
    for element in shown:
        assert float(element.attributes["value"]) == at(document, element.attributes["data-at"])

    before = runs_of(project)
    assert len(before) == 4
    more = Path(fl_compare("tiny", [*labels, "fedbn"], 1, QUICK))
    assert len(runs_of(project)) == 5
    assert more != folder
    kinds = [
        run.data.tags.get("kind")
        for run in track.client().search_runs(
            [track.client().get_experiment_by_name("tiny").experiment_id]
        )
    ]
    assert kinds.count("comparison") == 2
    assert track.client().search_registered_models() == []


def test_the_command_of_a_comparison_is_said_as_a_shell_takes_it():
    items = ["training.trainable=[norm, head]", "data.root=$HOME/my data"]
    words = shlex.split(describe_command("tiny", ["fedavg", "fedprox:mu=0.1+tl"], 2, items, 3))
    assert words == [
        *("consilium", "compare", "tiny", "--strategies", "fedavg,fedprox:mu=0.1+tl"),
        *("--seeds", "2", "--rounds", "3", "--set", items[0], "--set", items[1]),
    ]


def test_a_finished_run_is_looked_for_by_what_a_run_would_be_asked_for(project, monkeypatch):
    """What is `auto` in a description is left to the sites, and not read from all headers."""
    picture_set(project / "data" / "mine")
    describe(project / "data" / "mine", {k: v for k, v in CLASSES.items() if k != "shape"})
    own = {"seed": 0, "data": {"dataset": "mine"}, "sites": {"count": 2, "partition": "natural"}}
    document = TINY_PARAMS | {"experiments": {"mine": own}}
    (project / "params.yaml").write_text(yaml.safe_dump(document))
    asked = []

    def look(_: Path, experiment: Experiment, md5: str) -> None:
        asked.append(experiment)
        raise ConsiliumError("looked")

    monkeypatch.setattr("flows.compare.find_run", look)
    with pytest.raises(ConsiliumError, match="looked"):
        fl_compare("mine", ["fedprox:mu=0.5"], 1)
    overrides = ["strategy.name=fedprox", "strategy.mu=0.5", "seed=0"]
    assert asked == [RunRequest("mine", overrides).resolve()]
    assert asked[0].planning.auto == ("data.described.shape",)


@pytest.mark.usefixtures("prefect_server")
def test_a_stopped_run_goes_on_where_it_was(project, monkeypatch):
    import flows.round

    def stopped(*arguments: object) -> float:
        if arguments[1] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    real = flows.round.run_round
    monkeypatch.setattr(flows.round, "run_round", stopped)
    with pytest.raises(KeyboardInterrupt):
        fl_compare("tiny", ["fedavg"], 1)
    monkeypatch.setattr(flows.round, "run_round", real)
    (begun,) = runs_of(project)
    folder = Path(fl_compare("tiny", ["fedavg"], 1))
    assert runs_of(project) == [begun]
    assert json.loads((folder / "runs.json").read_text())["runs"][0]["run_id"] == begun


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_fails_is_told_at_once_and_the_others_run(project, caplog):
    with pytest.raises(
        ConsiliumError, match=r"1 of 2 runs failed.*fedadam:server_lr=1e30, seed 0: .*diverged"
    ):
        fl_compare("tiny", ["fedadam:server_lr=1e30", "fedavg"], 1, ["training.optimizer=sgd"])
    (table,) = (project / "runs" / "tiny").glob("compare-*/table.md")
    assert "| fedavg |" in table.read_text()
    told = caplog.text
    assert 0 < told.find("failed: fedadam:server_lr=1e30, seed 0: ") < told.find("run 2/2")


def test_a_comparison_trains_the_backbone_it_needs_and_starts_from_it(with_backbone):
    folder = Path(fl_compare("tiny", ["fedavg", "fedavg+tl"], 1))
    compared = json.loads((folder / "runs.json").read_text())["runs"]
    transfer = with_backbone / "runs" / "tiny" / compared[1]["run_id"] / "transfer.json"
    report = json.loads(transfer.read_text())
    assert len(report["matched"]) == 16
    assert report["file"] == "data/pretrained/cubes/model.safetensors"
    (version,) = track.client().search_model_versions("name='pretrain-cubes'")
    assert version.version in (1, "1")
    before = runs_of(with_backbone)
    fl_compare("tiny", ["fedavg+tl"], 1)
    assert runs_of(with_backbone) == before
    pretrain("cubes", ["seed=5"])
    fl_compare("tiny", ["fedavg+tl"], 1)
    assert len(runs_of(with_backbone)) == len(before) + 1


def test_weights_that_do_not_fit_stop_the_run_before_its_first_round(project):
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"other": np.zeros(3, np.float32)}, project / "w.safetensors")
    with pytest.raises(ConsiliumError, match=r"Nothing of w\.safetensors fits"):
        fl_round("tiny", overrides=["model.init=w.safetensors"])
