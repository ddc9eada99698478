"""From a folder of somebody's pictures to a model and its predictions, without code."""

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from federated.configuration.description_file import find_description
from federated.configuration.load import load_experiment
from federated.data.folders.described.text import open_doubts
from federated.errors import ConsiliumError
from federated.inference.prediction import predict_files
from federated.run.folder import RunFolder
from flows.cli.own_data import check
from flows.own_data import CHECKED, counts, facts, init, look, verdict, write_sheet, written_to
from flows.round import fl_round
from flows.steps import run_step
from tests.conftest import PROJECT, REAL_DATA, TINY_PARAMS
from tests.described_sets import (
    CLASSES,
    FINDINGS,
    PICTURES,
    SIDES,
    describe,
    labelled_pictures,
    picture_set,
    volume,
    write_table,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def described(folder: Path):
    return find_description(folder.name, folder.parent)


class TestInit:
    def test_pictures_and_masks_without_a_table_get_both_files(self, tmp_path):
        picture_set(tmp_path / "mine")
        (tmp_path / "mine" / "cases.csv").unlink()
        said = "\n".join(init(tmp_path / "mine"))
        assert described(tmp_path / "mine").labels == {"background": 0, "foreground": 255}
        assert "every image is taken for another patient" in said
        assert "add a column site" in said
        looked = look(tmp_path / "mine")
        assert [row[1:] for row in counts(looked)] == [("9", "1", "2", "12")]

    def test_a_table_is_described_by_its_columns(self, tmp_path):
        rows = picture_set(tmp_path / "mine")
        said = "\n".join(init(tmp_path / "mine"))
        assert "the column label has 0 (6), 1 (6): it could be a label" in said
        found = described(tmp_path / "mine")
        assert (found.task, found.columns.mask, found.columns.site) == (
            *("segmentation", "mask", "site"),
        )
        for row in rows:
            del row["mask"]
        write_table(tmp_path / "mine", rows)
        (tmp_path / "mine" / "dataset.yaml").unlink()
        init(tmp_path / "mine")
        found = described(tmp_path / "mine")
        assert (found.task, found.columns.label, found.classes) == (
            *("classification", "label", ("0", "1")),
        )

    def test_nothing_that_is_there_is_changed(self, tmp_path):
        picture_set(tmp_path / "mine")
        describe(tmp_path / "mine", PICTURES)
        before = contents(tmp_path / "mine")
        said = "\n".join(init(tmp_path / "mine"))
        assert contents(tmp_path / "mine") == before
        assert "stays as it is" in said

    def test_folders_of_classes_are_proposed_as_classes(self, tmp_path):
        picture_set(tmp_path / "there")
        for number, path in enumerate(sorted((tmp_path / "there/images").iterdir())):
            target = tmp_path / "mine" / ("ill" if number % 2 else "normal") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        init(tmp_path / "mine")
        assert described(tmp_path / "mine").classes == ("ill", "normal")

    def test_a_ct_gets_a_window_of_its_labelled_voxels(self, tmp_path):
        for number in range(3):
            rng = np.random.default_rng(number)
            values = rng.integers(-1000, -900, (12, 12, 12)).astype(np.float32)
            mask = np.zeros((12, 12, 12), np.uint8)
            mask[4:8, 4:8, 4:8] = 2
            values[mask > 0] = rng.integers(0, 101, 64)
            volume(tmp_path / "mine" / "images" / f"a{number}.nii.gz", values)
            volume(tmp_path / "mine" / "labels" / f"a{number}.nii.gz", mask)
        said = "\n".join(init(tmp_path / "mine"))
        low, high = described(tmp_path / "mine").window
        assert -2 <= low <= 5
        assert 95 <= high <= 101
        assert "taken for CT" in said

    @pytest.mark.parametrize("what", ["empty", "images alone", "no folder"])
    def test_where_nothing_can_be_learned_it_says_what_is_needed(self, tmp_path, what):
        if what != "no folder":
            (tmp_path / "mine").mkdir()
        if what == "images alone":
            picture_set(tmp_path / "there")
            shutil.copytree(tmp_path / "there/images", tmp_path / "mine", dirs_exist_ok=True)
        with pytest.raises(ConsiliumError) as caught:
            init(tmp_path / "mine")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "mine" / "dataset.yaml").exists()

    def test_a_table_with_an_age_alone_is_told_how_to_learn_it(self, tmp_path):
        rows = picture_set(tmp_path / "mine")
        kept = [{key: row[key] for key in ("patient", "image", "site")} for row in rows]
        aged = [{**row, "age": str(40 + number)} for number, row in enumerate(kept)]
        write_table(tmp_path / "mine", aged)
        with pytest.raises(ConsiliumError, match=r"age, sex, scanner are taken for attrib") as told:
            init(tmp_path / "mine")
        assert "`task: regression`, `columns: {label: age}` and `target:" in str(told.value)
        write_table(tmp_path / "mine", [{**row, "image": "gone.png"} for row in aged])
        with pytest.raises(ConsiliumError, match=r"Its column `image` names 'gone\.png'"):
            init(tmp_path / "mine")
        for row in aged:
            del row["image"]
        write_table(tmp_path / "mine", aged)
        with pytest.raises(ConsiliumError, match=r"Add a column `image`, with the path"):
            init(tmp_path / "mine")

    def test_the_proposed_experiment_can_be_loaded(self, tmp_path):
        picture_set(tmp_path / "data" / "mine")
        entry = init(tmp_path / "data" / "mine")[-1]
        document = TINY_PARAMS | {"experiments": yaml.safe_load(entry)}
        document["defaults"] = TINY_PARAMS["defaults"] | {
            "data": {"root": str(tmp_path / "data")},
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
        experiment = load_experiment("mine", params=tmp_path / "params.yaml")
        assert experiment.sites.partition == "natural"
        assert experiment.data.described == described(tmp_path / "data" / "mine")

    def test_without_a_parameter_file_all_of_one_is_proposed(self, tmp_path):
        picture_set(tmp_path / "data" / "mine")
        params = tmp_path / "params.yaml"
        params.write_text(init(tmp_path / "data" / "mine", params)[-1])
        experiment = load_experiment("mine", [f"data.root={tmp_path / 'data'}"], params)
        assert experiment.strategy.name == "fedavg"

    def test_what_is_proposed_lies_over_no_default(self, tmp_path):
        picture_set(tmp_path / "data" / "mine")
        params = tmp_path / "params.yaml"
        private = {"name": "site_level", "clip": 1, "noise_multiplier": 2}
        defaults = {"privacy": private, "protection": {"name": "ckks"}}
        params.write_text(yaml.safe_dump({"defaults": defaults, "experiments": {}}))
        entry = yaml.safe_load(init(tmp_path / "data" / "mine", params)[-1])["mine"]
        assert not set(defaults) & set(entry)
        assert {"strategy", "compression"} <= set(entry)

    def test_a_parameter_file_that_cannot_be_read_is_said_and_the_proposal_is_there(self, tmp_path):
        picture_set(tmp_path / "data" / "mine")
        (tmp_path / "params.yaml").write_text("experiments: [")
        *_, fault, _, entry = init(tmp_path / "data" / "mine", tmp_path / "params.yaml")
        assert "cannot be read as YAML" in fault
        assert "privacy" in yaml.safe_load(entry)["mine"]

    @pytest.mark.parametrize("with_table", [True, False])
    @pytest.mark.parametrize("name", ["chest", "sarcoma"])
    def test_real_folders_can_be_described(self, tmp_path, name, with_table):
        if not (REAL_DATA / name).is_dir():
            pytest.skip(f"needs ../shared/data/{name}")
        folder = tmp_path / f"my-{name}"
        folder.mkdir()
        for part in ("images", "masks"):
            (folder / part).symlink_to(REAL_DATA / name / part)
        if with_table:
            shutil.copy(REAL_DATA / name / "cases.csv", folder)
        init(folder)
        found = described(folder)
        assert (found.task, len(found.classes)) == ("segmentation", 2)
        sites = len(look(folder).partition.sites)
        assert sites == ({"chest": 2, "sarcoma": 4}[name] if with_table else 1)


def test_what_nobody_has_settled_is_counted_and_named(tmp_path):
    picture_set(tmp_path / "mine")
    (tmp_path / "mine" / "cases.csv").unlink()
    said = init(tmp_path / "mine")
    start = said.index("to be looked at:") + 1
    doubts = [line for line in said[start:] if line.startswith("- ")]
    assert len(doubts) > 2
    first, count, *named = verdict(tmp_path / "mine", tmp_path / "out")
    assert "nothing is wrong" not in first
    assert count.startswith(f"{len(doubts)} things are still open")
    assert named == doubts
    path = tmp_path / "mine" / "dataset.yaml"
    left = path.read_text().replace(f"# {doubts[0]}\n", "")
    path.write_text(left)
    assert verdict(tmp_path / "mine", tmp_path / "out")[2:] == doubts[1:]
    path.write_text("\n".join(line for line in left.splitlines() if not line.startswith("#")))
    (only,) = verdict(tmp_path / "mine", tmp_path / "out")
    assert only.startswith("nothing is wrong with these data; the report is")


def test_a_description_of_ones_own_with_a_list_in_comments_has_nothing_open():
    assert open_doubts("# - my own note\ntask: segmentation\n") == []


def test_a_check_shows_counts_labels_and_thumbnails_of_each_site(tmp_path):
    picture_set(tmp_path / "mine", 24)
    describe(tmp_path / "mine", CLASSES)
    looked = look(tmp_path / "mine")
    assert [row[0] for row in counts(looked)] == ["site-north", "site-south"]
    assert sum(int(row[-1]) for row in counts(looked)) == 24
    assert facts(looked) == [
        "site-north: normal 6, ill 6; shape 20 x 30",
        "site-south: normal 6, ill 6; shape 24 x 36",
    ]
    with Image.open(write_sheet(looked, tmp_path / "out")) as sheet:
        assert sheet.size == (8 * 128, 2 * 154)
        assert np.asarray(sheet).std() > 10


def test_what_a_check_shows_of_patients_is_not_committed_and_said_to_show_them(tmp_path):
    assert inspect.signature(check).parameters["out"].default == CHECKED
    assert f"{CHECKED}/" in (PROJECT / ".gitignore").read_text().splitlines()
    picture_set(tmp_path / "mine")
    for said in ("\n".join(init(tmp_path / "mine")), written_to(tmp_path / "out")):
        assert "patients" in said
        assert "commit" in said
    assert str(tmp_path / "out" / "thumbnails.png") in written_to(tmp_path / "out")


def test_a_case_that_cannot_be_prepared_does_not_keep_the_others_from_the_sheet(tmp_path):
    rows = picture_set(tmp_path / "mine")
    for row in rows:
        del row["label"]
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", PICTURES)
    (tmp_path / "mine" / rows[0]["image"]).write_bytes(b"none")
    looked = look(tmp_path / "mine")
    with Image.open(write_sheet(looked, tmp_path / "out")) as sheet:
        assert sheet.size[1] == 2 * 154


PICTURE_RUN = {
    "seed": 0,
    "data": {"dataset": "mine", "source": "files"},
    "sites": {"count": 2, "partition": "natural", "min_cases": 2},
    "validate": {},
}


@pytest.fixture
def mine(project):
    """A project with a described set of pictures, and an experiment on it."""
    picture_set(project / "data" / "mine", 48)
    describe(project / "data" / "mine", CLASSES)
    experiments = TINY_PARAMS["experiments"] | {"mine": PICTURE_RUN}
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS | {"experiments": experiments}))
    return project


@pytest.mark.usefixtures("prefect_server")
def test_a_run_on_described_pictures_registers_and_predicts_pictures_of_any_size(mine):
    folder = RunFolder(Path(fl_round("mine", rounds=2)))
    summary = json.loads(folder.summary_path.read_text())
    assert summary["sites"] == ["site-north", "site-south"]
    assert summary["metrics"]["test"]["auc"] is not None
    shutil.rmtree(mine / "data" / "mine")  # a model is used where the set is not
    other = mine / "other.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 41), dtype=np.uint8)).save(other)
    table, _ = predict_files(folder.model_path, [other], mine / "out")
    header, row = table.read_text().splitlines()
    assert header == "file,array,index,normal,ill"
    assert sum(float(value) for value in row.split(",")[3:]) == pytest.approx(1)


# What is learned of the pictures, how a model is chosen, and what is written of one picture.
LEARNED = {
    "multilabel": (FINDINGS, "val/auc", "large,dark (1/2)"),
    "regression": (SIDES, "val/r2", "side"),
}


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize("task", LEARNED)
def test_a_run_on_findings_or_numbers_registers_a_model_that_predicts_them(project, task):
    description, metric, names = LEARNED[task]
    labelled_pictures(project / "data" / "mine", description, 40)
    experiments = TINY_PARAMS["experiments"] | {
        "mine": PICTURE_RUN | {"selection": {"metric": metric}}
    }
    (project / "params.yaml").write_text(yaml.safe_dump(TINY_PARAMS | {"experiments": experiments}))
    folder = RunFolder(Path(fl_round("mine", rounds=2)))
    summary = json.loads(folder.summary_path.read_text())
    assert summary["sites"] == ["site-north", "site-south"]
    assert np.isfinite(summary["metrics"]["test"]["loss"])
    assert summary["model_version"] == 1
    shutil.rmtree(project / "data" / "mine")
    other = project / "other.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 41), dtype=np.uint8)).save(other)
    table, _ = predict_files(folder.model_path, [other], project / "out")
    header, row = table.read_text().splitlines()
    assert header == f"file,array,index,{names}"
    found = [float(value) for value in row.split(",")[3:]]
    assert 0 <= min(found) <= max(found) <= (20 if task == "regression" else 1)


@pytest.mark.parametrize("task", LEARNED)
def test_a_check_tells_which_findings_or_numbers_a_site_has(tmp_path, task):
    labelled_pictures(tmp_path / "mine", LEARNED[task][0], 24)
    looked = look(tmp_path / "mine")
    north = facts(looked)[0]
    expected = {
        "multilabel": "site-north: large in 6, dark (1/2) in 4, none in 4; shape 20 x 30",
        "regression": "site-north: side 6.1 to 12.9, median 9.5 mm; shape 20 x 30",
    }
    assert north == expected[task]
    with Image.open(write_sheet(looked, tmp_path / "out")) as sheet:
        assert sheet.size == (8 * 128, 2 * 154)


@pytest.mark.parametrize("task", LEARNED)
def test_the_proposed_experiment_of_findings_or_numbers_can_be_loaded(tmp_path, task):
    labelled_pictures(tmp_path / "data" / "mine", LEARNED[task][0])
    entry = init(tmp_path / "data" / "mine")[-1]
    document = TINY_PARAMS | {"experiments": yaml.safe_load(entry)}
    document["defaults"] = TINY_PARAMS["defaults"] | {"data": {"root": str(tmp_path / "data")}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    experiment = load_experiment("mine", params=tmp_path / "params.yaml")
    assert experiment.data.described.task == task


def test_what_was_prepared_by_another_description_does_not_fit(mine):
    from flows.prepare import prepared_folder

    experiment = load_experiment("mine")
    for step in ("download", "partition", "validate"):
        run_step(step, experiment)
    prepared_folder(experiment).check_fits(experiment)
    describe(mine / "data" / "mine", {**CLASSES, "labels": {"ill": 0, "normal": 1}})
    with pytest.raises(ConsiliumError, match=r"dataset\.yaml was"):
        prepared_folder(experiment).check_fits(load_experiment("mine"))


def test_a_file_of_no_case_fails_validation_of_a_classified_set(mine):
    experiment = load_experiment("mine")
    (mine / "data" / "mine" / "images" / "stray.png").write_bytes(b"x")
    for step in ("download", "partition"):
        run_step(step, experiment)
    with pytest.raises(ConsiliumError, match=r"no file that belongs to no case.*stray\.png"):
        run_step("validate", experiment)
