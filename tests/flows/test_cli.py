"""Bad input: one clear paragraph, an exit code that is not 0, no traceback."""

import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from federated.configuration.load import load_experiment
from federated.data.load import load, locate
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.privacy.accounting import epsilon
from federated.privacy.ledger import Budget, Spending, ledger_root
from federated.privacy.spending import EVALUATION
from federated.protection.keys import key_folders, read_public
from federated.site.holder import held_cases, holder_ledger
from flows.cli import main
from flows.round import fl_round


def call(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["consilium", *arguments])
    monkeypatch.delenv("CONSILIUM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    return int(exit_.value.code or 0), said.out, said.err


@pytest.fixture
def refused(capsys, monkeypatch):
    """Call the command line and return its one paragraph."""

    def ask(*arguments: str) -> str:
        code, _, error = call(capsys, monkeypatch, *arguments)
        assert code == 1
        assert error.startswith("Error: ")
        assert error.count("\n") == 1
        assert "Traceback" not in error
        return error

    return ask


MISTAKES = {
    "unknown experiment": (["run", "tinny"], "Did you mean 'tiny'?"),
    "unknown key": (["run", "tiny", "--set", "strategy.muu=1"], "Did you mean 'mu'?"),
    "sites: 0": (["run", "tiny", "--set", "sites=0"], "sites=0 is not possible"),
    "no sites": (["run", "tiny", "--set", "sites.count=0"], "sites.count=0 is not possible"),
    "beta 0": (["run", "tiny", "--set", "sites.beta=0"], "sites.beta=0 is not possible"),
    "negative beta": (["sites", "show", "tiny", "--set", "sites.beta=-1"], "sites.beta=-1"),
    "more sites than cases": (
        ["sites", "show", "tiny", "--set", "sites.count=90"],
        "Lower sites.count",
    ),
    "not a setting": (["run", "tiny", "--set", "mu"], "section.key=value"),
    "unknown step": (["prepare", "tiny", "--step", "clean"], "There is no step 'clean'"),
    "nothing prepared": (["prepare", "tiny", "--step", "partition"], "consilium prepare tiny"),
    "no model": (["evaluate", "tiny", "--model", "no", "--out", "m.json"], "not a model"),
    "no params": (["run", "tiny", "--params", "no.yaml"], "There is no no.yaml"),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_paragraph(refused, mistake):
    arguments, said = MISTAKES[mistake]
    assert said in refused(*arguments)


@pytest.mark.usefixtures("prefect_server")
class TestMistakesThatShowInTheFlow:
    def test_a_missing_data_file(self, refused, project):
        (project / "data" / "medmnist" / "adrenalmnist3d.npz").unlink()
        assert "data.source=files, but there is no" in refused("run", "tiny")

    def test_a_corrupted_npz(self, refused, project):
        path = project / "data" / "medmnist" / "adrenalmnist3d.npz"
        path.write_bytes(path.read_bytes()[:9999])
        assert "damaged or truncated" in refused("run", "tiny")

    def test_more_sites_than_cases(self, refused, project):
        assert "Lower sites.count" in refused("run", "tiny", "--set", "sites.count=90")

    def test_a_read_only_run_folder(self, refused, project):
        said = refused("run", "tiny", "--runs", "/proc/runs")
        assert "Cannot write to the folder /proc/runs/tiny" in said

    def test_a_tracking_server_that_cannot_be_used(self, refused, project, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
        assert "MLflow at sqlite:////proc/nowhere/mlflow.db" in refused("run", "tiny")


PORTS = [("--prefect-port", "Prefect"), ("--mlflow-port", "MLflow")]


@pytest.mark.parametrize(("option", "what"), PORTS)
def test_a_port_in_use(refused, project, monkeypatch, option, what):
    # As on a machine where no Prefect API is configured.
    monkeypatch.setattr("flows.serve.configured_api", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("serve", option, port)
    assert f"Port {port} on 127.0.0.1, meant for the {what} server, is in use" in said
    assert option in said


def test_an_unexpected_error_has_no_traceback_either(refused, monkeypatch, project):
    monkeypatch.setattr("federated.configuration.load.load_experiment", lambda *_: 1 / 0)
    said = refused("sites", "show", "tiny")
    assert "ZeroDivisionError" in said
    assert "--debug" in said


def test_debug_shows_the_traceback(monkeypatch, project):
    monkeypatch.setattr(sys, "argv", ["consilium", "--debug", "sites", "show", "tinny"])
    monkeypatch.setenv("CONSILIUM_DEBUG", "")
    from federated.errors import ConsiliumError

    with pytest.raises(ConsiliumError):
        main()


def test_sites_are_shown_as_a_table(capsys, monkeypatch, project):
    code, out, _ = call(capsys, monkeypatch, "sites", "show", "tiny")
    assert code == 0
    assert "site-02" in out
    assert "hyperplasia" in out


def test_doctor_finds_a_broken_file(capsys, monkeypatch, project):
    code, out, _ = call(capsys, monkeypatch, "doctor")
    assert code == 0
    assert "torch" in out
    text = (project / "params.yaml").read_text().replace("source: files", "source: medmnist")
    (project / "params.yaml").write_text(text)
    code, out, _ = call(capsys, monkeypatch, "doctor")
    assert code == 1
    assert "wrong" in out
    assert "MD5" in out


def test_keys_of_a_stopped_run_are_made_shown_replaced_and_erased(
    capsys, monkeypatch, refused, project, prefect_server, in_process, failing, prepared_tiny
):
    assert "There is no run of 'tiny'" in refused("keys", "new", "tiny")
    assert "no key for tiny" in call(capsys, monkeypatch, "keys", "show", "tiny")[1]
    settings = ["protection.name=packed_bfv", "compression.bits=8", "runner.name=processes"]
    failing("protect site-01 1")
    with pytest.raises(ConsiliumError, match="no power"):
        fl_round("tiny", settings, prepared=prepared_tiny)
    (folder,) = key_folders("tiny")
    assert "There is a key for run" in refused("keys", "new", "tiny")
    first = read_public(folder).fingerprint
    assert first in call(capsys, monkeypatch, "keys", "show", "tiny")[1]
    code, made, _ = call(capsys, monkeypatch, "keys", "rotate", "tiny")
    assert code == 0
    assert "never to the coordinator" in made
    shown = call(capsys, monkeypatch, "keys", "show", "tiny")[1]
    assert first not in shown
    assert shown.count("packed_bfv") == 1
    assert "erased 1 of run" in call(capsys, monkeypatch, "keys", "erase", "tiny")[1]
    assert "no key of run" in call(capsys, monkeypatch, "keys", "erase", "tiny")[1]
    assert "has no key to replace" in refused("keys", "rotate", "tiny")
    assert call(capsys, monkeypatch, "keys", "new", "tiny")[0] == 0
    assert len(key_folders("tiny")) == 1


@pytest.mark.usefixtures("project")
def test_ledgers_are_shown_checked_and_limited(capsys, monkeypatch, refused):
    assert "epsilon has to be above 0" in refused("ledger", "budget", "tiny", "--epsilon", "0")
    assert "no site 'site-9'" in refused("ledger", "budget", "tiny", "--epsilon=1", "--site=site-9")
    assert "--unit is record or site" in refused(
        "ledger", "budget", "tiny", "--epsilon=1", "--unit=x"
    )
    assert "--evaluation is untrained or refuse" in refused(
        "ledger", "budget", "tiny", "--epsilon=1", "--evaluation=x"
    )
    limited = call(
        capsys, monkeypatch, "ledger", "budget", "tiny", "--epsilon=3", "--site=site-01"
    )[1]
    said = "epsilon 3 at delta 1e-05 for each record of site-01"
    assert f"site-01: {said}, of which nothing is spent" in limited
    shown = call(capsys, monkeypatch, "ledger", "show", "tiny")[1]
    assert f"budget: {said}\n" in shown
    assert "does not say which cases are of one patient" in shown
    own = held_cases(load_experiment("tiny"), load(*_located())).records(["site-01"], "train")
    left = [line.split()[-2] for line in shown.splitlines() if "all 3" in line]
    assert left == [str(len(own))]
    code, out, _ = call(capsys, monkeypatch, "ledger", "verify", "tiny")
    assert code == 0
    assert "adrenalmnist3d: whole, 1 entries" in out
    assert "agrees with the 0 heads found in runs" in out
    path = ledger_root() / "adrenalmnist3d.jsonl"
    path.write_text(path.read_text().replace('"epsilon": 3.0', '"epsilon": 9.0'))
    code, out, _ = call(capsys, monkeypatch, "ledger", "verify", "tiny")
    assert code == 1
    assert "entry 1 was changed" in out


def _located():
    experiment = load_experiment("tiny")
    return locate(experiment.data), experiment.data


@pytest.mark.usefixtures("project")
def test_the_ledger_shows_the_worst_record_and_how_many_have_how_much_left(capsys, monkeypatch):
    experiment = load_experiment("tiny")
    cases = held_cases(experiment, load(*_located()))
    ledger = holder_ledger(experiment)
    own = {site: cases.records([site], "train") for site in cases.partition.sites}
    one = Spending("gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "tiny", "site-00")
    ledger.set_budget(Budget("record", 8.0, 1e-5))
    ledger.spend(one, own["site-00"])
    ledger.spend(one, own["site-00"][:4])
    ledger.spend(replace(one, mechanism=EVALUATION), cases.records(["site-00"], "test"))
    shown = call(capsys, monkeypatch, "ledger", "show", "tiny")[1]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    found = {row[0]: row[1:] for row in rows if row}
    worst = epsilon([replace(one, steps=100).release], 1e-5, "prv")
    expected = [str(len(own["site-00"])), "2", "1", f"{worst:.3g}", "unknown", "no guarantee"]
    assert found["site-00"] == expected
    assert found["site-01"] == [str(len(own["site-01"])), "0", "0", "-", "unknown", "-"]
    others = len(own["site-01"]) + len(own["site-02"])
    assert found["all 8"] == [str(others)]
    once = epsilon([one.release], 1e-5, "prv")
    assert 8 - once >= 6 > 8 - worst >= 4
    assert found[">= 6"] == [str(len(own["site-00"]) - 4)]
    assert found[">= 4"] == ["4"]
    assert found["nothing"] == found["no guarantee"] == ["0"]
    told = len(cases.records(["site-00"], "test"))
    assert f"evaluated in the clear: {told} records that were never trained on" in shown


@pytest.mark.usefixtures("project")
def test_verify_compares_with_the_heads_that_runs_have_kept(capsys, monkeypatch):
    """Both files put back to an older copy: within themselves they are whole."""
    ledger = holder_ledger(load_experiment("tiny"))
    one = Spending("gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "tiny", "site-00")
    ledger.spend(one, ["a"])
    old = ledger.path.read_bytes(), ledger.head_path.read_bytes()
    head = asdict(ledger.spend(one, ["a"]))
    kept = {"holder": "adrenalmnist3d", "head": head}
    write_json(Path("runs/tiny/r1/ledger/site-00.json"), kept)
    code, out, _ = call(capsys, monkeypatch, "ledger", "verify", "tiny")
    assert code == 0
    assert "agrees with the 1 heads found in runs" in out
    ledger.path.write_bytes(old[0])
    ledger.head_path.write_bytes(old[1])
    code, out, _ = call(capsys, monkeypatch, "ledger", "verify", "tiny")
    assert code == 1
    assert "run r1 has seen entry 2" in out
    assert "put back to an older copy, or replaced" in out
    ledger.path.unlink()
    ledger.head_path.unlink()
    assert call(capsys, monkeypatch, "ledger", "verify", "tiny")[0] == 1


@pytest.mark.usefixtures("project")
def test_an_old_ledger_is_taken_over_by_any_command(capsys, monkeypatch):
    from tests.federated.stages.test_ledger_migration import OLD, write_old

    write_old("site-00-0123456789ab", [OLD])
    code, out, _ = call(capsys, monkeypatch, "ledger", "show", "tiny")
    assert code == 0
    assert "1 entries of 1 ledgers of an older version were taken over" in out
    assert (
        "no ledger of an older version" in call(capsys, monkeypatch, "ledger", "migrate", "tiny")[1]
    )


COMMANDS = [
    "run",
    "resume",
    "pretrain",
    "compare",
    "prepare",
    "evaluate",
    "predict",
    "doctor",
    "serve",
]


GROUPS = {
    "keys": ("new", "show", "rotate"),
    "ledger": ("show", "verify", "budget", "migrate"),
    "sites": ("show", "join"),
}


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"{group} {one}" for group in GROUPS for one in GROUPS[group])]
)
def test_every_command_has_help_with_an_example(capsys, monkeypatch, command):
    code, out, _ = call(capsys, monkeypatch, *command.split(), "--help")
    assert code == 0
    assert "Example" in out


@pytest.mark.usefixtures("prefect_server")
def test_a_run_says_what_it_reached_and_where_to_look(capsys, monkeypatch, project):
    code, out, _ = call(capsys, monkeypatch, "run", "tiny", "--rounds", "1")
    assert code == 0
    assert "round 1/1: validation" in out
    assert "data_source: files" in out
    assert "summary.json" in out
