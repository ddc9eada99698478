"""Many sites are judged as one table first, and what is found of each is what is found of it alone.

Great Expectations itself is counted by its suites: they do not become more with the sites.
"""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment

import tasks.suites
from federated.configuration.load import resolve
from federated.data.dataset import SPLITS, Dataset
from federated.data.folders.dataset import read_folder
from federated.data.medmnist import files as medmnist
from federated.data.partitioning import partition_dataset
from federated.data.tables import site_tables
from federated.settings.sections import Parties, Processes
from tasks.fork_server import start_fork_server
from tasks.suites import begin_judging, broken_rules, end_judging, run_suites
from tests.conftest import PROJECT, TINY_PARAMS, tiny_volumes
from tests.federated.faulty_folder import write_faulty

MANY = 6


@pytest.fixture
def together(monkeypatch):
    """As few sites as a test has are many; returns the names of the suites."""
    names: list[str] = []
    monkeypatch.setattr(tasks.suites, "MOST_ALONE", 1)
    results = tasks.suites._Judge.results

    def noted(judge, name, rules, table):
        names.append(name)
        return results(judge, name, rules, table)

    monkeypatch.setattr(tasks.suites._Judge, "results", noted)
    return names


def of_images(sites: int = MANY, **validation: object):
    arrays = tiny_volumes()
    dataset = Dataset(
        medmnist.dataset_info("adrenalmnist3d"),
        {split: arrays[f"{split}_images"][:, None] for split in SPLITS},
        {split: arrays[f"{split}_labels"][:, 0].astype(np.int64) for split in SPLITS},
    )
    experiment = resolve(
        "tiny",
        TINY_PARAMS["defaults"]
        | {
            "sites": {"count": sites, "partition": "iid", "min_cases": 3},
            "validate": validation,
        },
        "",
    )
    partition = partition_dataset(dataset, experiment.sites, 0)
    return experiment, dataset, site_tables(dataset, partition)


def constant(table: pd.DataFrame) -> None:
    table.loc[0, ["minimum", "maximum", "std"]] = 7.0, 7.0, 0.0


def copied(table: pd.DataFrame) -> None:
    table.loc[1, "digest"] = table.loc[0, "digest"]


def of_another(table: pd.DataFrame) -> None:
    table.loc[0, "shape"] = "1x2x3x4"


def leaked(table: pd.DataFrame) -> None:
    table.loc[table.index[-1], "in_train"] = 1


def too_few(table: pd.DataFrame) -> None:
    table.drop(index=table.index[table["split"] == "train"][2:], inplace=True)


def nothing_left(table: pd.DataFrame) -> None:
    table.drop(index=table.index, inplace=True)


def without_a_class(table: pd.DataFrame) -> None:
    table.loc[table["split"] == "train", "class_cases"] = 0


FAULTS = {
    each.__name__: each
    for each in (constant, copied, of_another, leaked, too_few, nothing_left, without_a_class)
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_found_together_is_what_is_found_of_each_site_alone(
    tmp_path, monkeypatch, fault, together
):
    experiment, dataset, tables = of_images()
    FAULTS[fault](tables["site-02"])
    # Of one case at two sites each may have it.
    tables["site-04"].loc[0, "digest"] = tables["site-05"].loc[0, "digest"]
    found = run_suites(experiment, dataset.info, tables, tmp_path / "together")
    assert together[-1] == "site-02"
    assert "site-03" not in together
    monkeypatch.setattr(tasks.suites, "MOST_ALONE", MANY)
    alone = run_suites(experiment, dataset.info, tables, tmp_path / "alone")
    assert found == alone
    assert {site for site, rules in found.items() if rules} == {"site-02"}
    page = (tmp_path / "together" / "index.html").read_text()
    assert "site-02" in page
    assert f"{len([t for t in tables.values() if len(t)])} sites together" in page


class Elsewhere:
    """What would judge in this process."""

    def __init__(self, *_: object) -> None:
        raise AssertionError("judged in the process of the run")


@pytest.mark.parametrize("runner", [Processes(name="processes", workers=1), Parties(name="sites")])
def test_where_there_are_workers_a_process_of_its_own_judges_and_finds_the_same(
    tmp_path, monkeypatch, runner
):
    experiment, dataset, tables = of_images()
    constant(tables["site-02"])
    found = broken_rules(experiment, dataset.info, tables, tmp_path / "here")
    assert found["site-02"]
    with_workers = experiment.model_copy(update={"runner": runner})
    start_fork_server()
    monkeypatch.setattr(tasks.suites, "_Judge", Elsewhere)
    with pytest.raises(AssertionError, match="judged in the process"):
        broken_rules(experiment, dataset.info, tables, tmp_path / "nowhere")
    assert broken_rules(with_workers, dataset.info, tables, tmp_path / "apart") == found
    pages = [
        {path.relative_to(root) for path in root.rglob("*.html") if "validations" not in path.parts}
        for root in (tmp_path / "here", tmp_path / "apart")
    ]
    assert pages[0] == pages[1]
    assert pages[0]


def test_a_process_that_was_begun_before_judges_once_and_finds_the_same(tmp_path, monkeypatch):
    experiment, dataset, tables = of_images()
    constant(tables["site-02"])
    found = broken_rules(experiment, dataset.info, tables, tmp_path / "here")
    workers = Processes(name="processes", workers=1)
    experiment = experiment.model_copy(update={"runner": workers})
    start_fork_server()
    for _ in range(2):
        begin_judging(experiment)
    (begun,) = tasks.suites._BEGUN
    process = begun.result(timeout=60)
    with monkeypatch.context() as patched:
        patched.setattr("tasks.pool.open_worker", Elsewhere)
        assert broken_rules(experiment, dataset.info, tables, tmp_path / "begun") == found
    with pytest.raises(RuntimeError, match="after shutdown"):
        process.submit(len, "")
    assert tasks.suites._BEGUN == []
    assert broken_rules(experiment, dataset.info, tables, tmp_path / "next") == found


def test_a_process_that_cannot_be_begun_is_told_where_it_is_needed(tmp_path, monkeypatch):
    experiment, dataset, tables = of_images()
    workers = Processes(name="processes", workers=1)
    experiment = experiment.model_copy(update={"runner": workers})
    start_fork_server()
    monkeypatch.setattr("tasks.pool.open_worker", Elsewhere)
    begin_judging(experiment)
    with pytest.raises(AssertionError, match="judged in the process"):
        broken_rules(experiment, dataset.info, tables, tmp_path / "begun")


def use_for_a_minute(process):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        process.submit(len, "").result(timeout=60)


def test_a_process_that_was_begun_in_vain_is_ended():
    experiment = of_images()[0]
    workers = Processes(name="processes", workers=1)
    start_fork_server()
    begin_judging(experiment.model_copy(update={"runner": workers}))
    (begun,) = tasks.suites._BEGUN
    end_judging()
    assert tasks.suites._BEGUN == []
    process = begun.result(timeout=60)
    with pytest.raises(RuntimeError, match="after shutdown"):
        use_for_a_minute(process)


@pytest.mark.parametrize("moment", ["at once", "while the fork server imports"])
def test_a_run_that_is_stopped_while_what_judges_is_begun_says_no_more_than_that(moment):
    """It may not end before the process is there that it has asked for, or that one complains."""
    wait = "import tasks.pool, time; end = lambda: time.sleep(0.3)"
    program = (
        "import sys\n"
        f"{'end = int' if moment == 'at once' else wait}\n"
        "from tasks.fork_server import start_fork_server\n"
        "from tasks.suites import begin_judging\n"
        "from tests.tasks.test_suites import Processes, of_images\n"
        "workers = Processes(name='processes', workers=1)\n"
        "experiment = of_images()[0].model_copy(update={'runner': workers})\n"
        "start_fork_server()\n"
        "begin_judging(experiment)\n"
        "end()\n"
        "sys.exit(130)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("runner", [None, Parties(name="sites")])
def test_a_run_that_does_not_judge_in_a_process_of_its_own_begins_none(runner):
    experiment = of_images()[0]
    start_fork_server()
    begin_judging(experiment.model_copy(update={"runner": runner or experiment.runner}))
    assert tasks.suites._BEGUN == []


def test_suites_do_not_become_more_with_the_sites(tmp_path, together):
    counts = []
    for sites in (MANY, 2 * MANY):
        together.clear()
        experiment, dataset, tables = of_images(sites)
        assert not any(run_suites(experiment, dataset.info, tables, tmp_path / str(sites)).values())
        counts.append(len(together))
    assert counts == [2, 2]


def test_a_rule_that_nobody_has_said_how_to_ask_of_many_is_asked_of_each(
    tmp_path, monkeypatch, together
):
    import great_expectations.expectations as gxe

    import tasks.expectations

    rules = tasks.expectations.RULES["classification"]

    def more(*given):
        return rules(*given) | {"new": gxe.ExpectColumnMeanToBeBetween(column="index", min_value=0)}

    monkeypatch.setitem(tasks.expectations.RULES, "classification", more)
    experiment, dataset, tables = of_images()
    run_suites(experiment, dataset.info, tables, tmp_path)
    assert together == list(tables)


def test_files_of_faulty_cases_are_found_together_as_alone(tmp_path, monkeypatch, together):
    folder = tmp_path / "kidney"
    write_faulty(folder, cases=30)
    experiment = resolve(
        "kidney",
        {
            "data": {"dataset": "kidney", "source": "files", "root": str(tmp_path)},
            "sites": {"count": 4, "partition": "iid", "min_cases": 3},
            "model": {"name": "unet"},
            "selection": {"metric": "val/dice"},
            **{"strategy": {"name": "fedavg"}, "privacy": {"name": "none"}},
            **{"compression": {"name": "none"}, "protection": {"name": "plain"}},
        },
        "params.yaml",
    )
    dataset = read_folder(folder, "kidney")
    tables = site_tables(dataset, partition_dataset(dataset, experiment.sites, 0))
    found = run_suites(experiment, dataset.info, tables, tmp_path / "together")
    assert any("sites together" in name for name in together)
    monkeypatch.setattr(tasks.suites, "MOST_ALONE", 10)
    assert found == run_suites(experiment, dataset.info, tables, tmp_path / "alone")
    assert sum(map(bool, found.values())) >= 3


def test_templates_of_pages_are_compiled_once_in_a_process(tmp_path, monkeypatch):
    experiment, dataset, tables = of_images(2)
    run_suites(experiment, dataset.info, tables, tmp_path / "one")
    compiled = []
    compile_ = Environment.compile

    def noted(environment, source, name=None, *given, **named):
        compiled.append(name)
        return compile_(environment, source, name, *given, **named)

    monkeypatch.setattr(Environment, "compile", noted)
    run_suites(experiment, dataset.info, tables, tmp_path / "two")
    assert compiled == []
    pages = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.html")]
    assert len(pages) >= 1 + 2 * 2
    assert (tmp_path / "two" / "index.html").is_file()
