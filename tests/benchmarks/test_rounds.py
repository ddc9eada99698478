"""The benchmark of rounds: that all contestants do the same work, and what its table says."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import process_tree, rounds, standings
from benchmarks.contestants import CONTESTANTS, ROOT, environment
from benchmarks.peers import loop, tuned
from benchmarks.peers.nvflare.log import marks_of
from benchmarks.peers.work import Work, read_weights, train
from benchmarks.rounds_work import Dealt, update, write_work
from benchmarks.standings import Timed
from federated.configuration.load import load_experiment
from federated.data.cases import LabelledImages
from federated.data.dataset import Dataset
from federated.data.medmnist.files import dataset_info
from federated.data.partition import Partition
from federated.learning import task_of
from federated.training.loop import Turn
from federated.training.loop import train as train_ours
from federated.training.rule import LocalRule
from federated.weights.build import new_model

SIDE = 8
COUNTS = {"train": (10, 7), "val": (3, 2), "test": (4, 3)}


@pytest.fixture(scope="module")
def dealt() -> Dealt:
    """Two sites with a few images of noise."""
    sets = ["training.batch_size=4", "rounds=2", "sites.count=2", "training.schedule=constant"]
    experiment = load_experiment("adrenal", sets, ROOT / "params.yaml")
    rng, info = np.random.default_rng(0), dataset_info("adrenalmnist3d")
    images, labels, sites = {}, {}, {"site-00": {}, "site-01": {}}
    for split, (first, second) in COUNTS.items():
        shape = (first + second, 1, SIDE, SIDE, SIDE)
        images[split] = rng.integers(0, 256, shape, np.uint8)
        labels[split] = (np.arange(first + second) % 2).astype(np.int64)
        sites["site-00"][split] = tuple(range(first))
        sites["site-01"][split] = tuple(range(first, first + second))
    return Dealt(experiment, (), Dataset(info, images, labels), Partition(sites, 1, 0), "phantom")


@pytest.fixture(scope="module")
def work(dealt: Dealt, tmp_path_factory: pytest.TempPathFactory) -> Work:
    return write_work(dealt, tmp_path_factory.mktemp("work"))


def test_a_contestant_trains_to_the_weights_that_this_project_trains_to(
    dealt: Dealt, work: Work
) -> None:
    experiment, info = dealt.experiment, dealt.dataset.info
    for site, name in enumerate(work.sites):
        theirs = work.model()
        train(work, theirs, site, 2)
        ours = new_model(experiment, info)
        chosen = list(dealt.partition.sites[name]["train"])
        cases = LabelledImages(
            dealt.dataset.images["train"][chosen], dealt.dataset.labels["train"][chosen]
        )
        loss = task_of(info).make_loss(cases, experiment.training, info, torch.device("cpu"))
        turn = Turn(experiment.seed, name, 2, experiment.rounds)
        train_ours(ours, cases, experiment.training, LocalRule(), loss, turn)
        for key, value in ours.state_dict().items():
            torch.testing.assert_close(theirs.state_dict()[key], value, rtol=0, atol=1e-6)


def test_the_bare_and_the_tuned_loop_come_to_the_same_weights_and_mark_each_round(
    work: Work, tmp_path: Path
) -> None:
    found = {}
    programs = {"loop": loop.main} | {
        layout: partial(tuned.main, layout=layout) for layout in tuned.LAYOUTS
    }
    for name, program in programs.items():
        out = tmp_path / name
        out.mkdir()
        program(Path(work.folder), out)
        found[name] = read_weights(out / "weights.npz")
        marks = json.loads((out / "marks.json").read_text())
        assert len(marks) == work.rounds + 1
        assert marks == sorted(marks)
    first = work.initial()
    assert any(np.abs(found["loop"][key] - first[key]).max() > 1e-4 for key in first)
    for layout in tuned.LAYOUTS:
        for key, value in found["loop"].items():
            np.testing.assert_allclose(found[layout][key], value, rtol=0, atol=2e-5)


def test_work_that_is_written_is_read_as_it_was(work: Work) -> None:
    assert Work.read(Path(work.folder)) == work


def test_rounds_of_flare_are_read_from_the_log_of_its_server() -> None:
    rule = "-" * 40
    log = "\n".join(
        (
            f"2026-11-26 20:00:00,500 - FedAvg - INFO - [x] - \n{rule}\n   Round 0 started.   ",
            f"{rule}\n2026-11-26 20:00:03,000 - INFO - Workflow controller started",
            f"2026-11-26 20:00:10,750 - FedAvg - INFO - [x] - \n{rule}\n   Round 1 started.   ",
            f"2026-11-26 20:00:20,000 - FedAvg - INFO - [x] - \n{rule}\n   Finished FedAvg.   ",
        )
    )
    first, second, end = marks_of(log)
    assert (second - first, end - second) == pytest.approx((10.25, 9.25))


def timed(name: str, number: int, total: float, in_rounds: float) -> Timed:
    return Timed(name, number, total, total - in_rounds, in_rounds, in_rounds / 5, 900, 0.8, 0.1)


def test_ratios_are_of_medians() -> None:
    runs = [timed("consilium", n, total, 10) for n, total in enumerate((20, 21, 90))]
    runs += [timed("tuned", n, total, 8) for n, total in enumerate((1, 14, 15))]
    middle = standings.medians(runs)
    assert middle["consilium"]["total"] == 21
    assert standings.ratios(middle) == {"tuned": {"total": 1.5, "rounds": 1.25}}


@pytest.mark.parametrize(("now", "lines"), [(1.09, 0), (1.11, 1), (0.91, 0), (0.89, 1)])
def test_a_ratio_that_changes_by_more_than_a_tenth_is_told(now: float, lines: int) -> None:
    told = standings.changes({"tuned": {"rounds": now}}, {"tuned": {"rounds": 1.0}})
    assert len(told) == lines


def test_a_contestant_that_has_learned_something_else_is_told() -> None:
    random = np.random.default_rng(0)
    common = random.normal(size=1000)
    alike = {name: common + 0.4 * random.normal(size=1000) for name in ("consilium", "loop", "pfl")}
    assert not standings.other_models(alike)
    assert not standings.other_models({"consilium": common})
    for name, wrong in {"half": 0.5, "twice": 2.0}.items():
        (said,) = standings.other_models({**alike, name: wrong * common})
        assert said.startswith(f"{name} has moved the weights by ")
    elsewhere = random.normal(size=1000) * np.linalg.norm(alike["loop"]) / 1000**0.5
    for never in (np.zeros(1000), -common, elsewhere):
        assert [said.split()[0] for said in standings.other_models({**alike, "flower": never})] == [
            "flower"
        ]


def test_an_update_is_of_the_weights_that_are_trained() -> None:
    before = {"b": np.ones((2, 2), np.float32), "a": np.zeros(1, np.float32)}
    after = {"a": np.full(1, 3, np.float32), "b": np.full((2, 2), 2, np.float32)}
    steps = {"steps": np.zeros((), np.int64)}
    assert update(before | steps, after | steps).tolist() == [3, 1, 1, 1, 1]


def test_contestants_that_only_one_side_has_are_not_compared() -> None:
    assert not standings.changes({"flower": {"total": 3.0}}, {"loop": {"total": 1.0}})


def test_contestants_run_in_turn_and_every_other_time_backwards() -> None:
    assert standings.turns({"a": 3, "b": 2, "c": 1}) == [
        ("a", 1), ("b", 1), ("c", 1), ("b", 2), ("a", 2), ("a", 3),
    ]  # fmt: skip


def test_a_baseline_of_other_work_is_not_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "baseline.json"
    found = {"work": {"rounds": 5}, "machine": {}, "ratios": {"tuned": {"total": 2.0}}}
    path.write_text(json.dumps({**found, "ratios": {"tuned": {"total": 1.0}}}))
    assert len(rounds.compare(found, path)) == 1
    assert rounds.compare({**found, "work": {"rounds": 6}}, path) == []
    assert "rounds is 6, and 5 in the baseline" in capsys.readouterr().out


def test_a_damaged_baseline_is_an_error_for_a_person(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"work": ')
    with pytest.raises(rounds.ConsiliumError, match="Put back the committed one"):
        rounds.compare({"work": {}, "machine": {}, "ratios": {}}, path)


@pytest.mark.parametrize("text", ["nobody", "loop:0", "loop:x", ""])
def test_who_does_not_take_part_is_refused(text: str) -> None:
    with pytest.raises(rounds.ConsiliumError):
        rounds.read_contestants(text, 3)


def test_a_contestant_may_have_repetitions_of_its_own() -> None:
    assert rounds.read_contestants("consilium,nvflare:1", 3) == {"consilium": 3, "nvflare": 1}


def test_each_peer_has_a_lock_with_hashes() -> None:
    for each in CONTESTANTS.values():
        if each.peer:
            name = each.name.partition("-")[0]
            lock = (ROOT / "benchmarks" / "peers" / name / "requirements.txt").read_text()
            assert f"\n{each.peer}==" in f"\n{lock}"
            assert lock.count("==") <= lock.count("--hash=sha256:")


def test_the_memory_of_a_program_is_that_of_all_that_it_starts(tmp_path: Path) -> None:
    child = "import time; held = bytearray(120 * 2**20); time.sleep(1.5)"
    parent = (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    command, log = [sys.executable, "-c", parent], tmp_path / "log.txt"
    measured = process_tree.run(command, tmp_path, environment(), log, 60)
    assert measured.peak_mb > 120
    assert measured.seconds > 1.5


def test_what_a_program_that_fails_has_said_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('it broke'); raise SystemExit(3)"]
    with pytest.raises(process_tree.FailedError, match=r"failed with 3:\nit broke"):
        process_tree.run(command, tmp_path, environment(), tmp_path / "log.txt", 60)


def test_what_a_program_leaves_running_is_ended_and_nothing_else(tmp_path: Path) -> None:
    import subprocess

    sleeping = "import time; time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleeping!r}])"
    with subprocess.Popen([sys.executable, "-c", sleeping]) as mine:
        try:
            before = process_tree.started_since([])
            command = [sys.executable, "-c", parent]
            process_tree.run(command, tmp_path, environment(), tmp_path / "log.txt", 60)
            assert process_tree.started_since([]) == before
            assert mine.poll() is None
        finally:
            mine.kill()


def test_the_table_names_each_contestant_and_its_ratio() -> None:
    middle = standings.medians([timed("consilium", 1, 30, 20), timed("loop", 1, 60, 40)])
    rows = standings.table(middle, {"loop": "bare"}, {"consilium": 1, "loop": 1})
    assert rows[2][0] == "bare"
    assert rows[2][-2:] == ["0.50", "0.50"]
    assert standings.markdown(rows).count("\n") == 4


def test_weights_of_no_training_have_an_auc(dealt: Dealt, work: Work) -> None:
    assert 0 <= dealt.auc(work.initial()) <= 1


def test_work_of_another_seed_draws_other_batches(work: Work) -> None:
    other = replace(work, seeds=tuple(tuple(s + 1 for s in row) for row in work.seeds))
    one, two = next(work.batches(0, 1)), next(other.batches(0, 1))
    assert not torch.equal(one[0], two[0])
