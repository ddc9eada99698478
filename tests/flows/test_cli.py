"""Bad input: one clear paragraph, an exit code that is not 0, no traceback."""

import re
import shlex
import socket
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel, field_serializer

from federated.configuration.load import load_experiment
from federated.data.load import load, locate
from federated.data.medmnist import files as medmnist
from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.privacy.accounting import epsilon
from federated.privacy.ledger import Budget, Spending, ledger_root
from federated.privacy.spending import EVALUATION
from federated.run.runs import latest_run
from federated.settings.networks import SmallCNN
from federated.site.holder import held_cases, holder_ledger
from federated.weights.model_file import ModelHeader, save_model
from flows import cli
from flows.cli import main
from flows.round import fl_round
from tests.conftest import tiny_volumes
from tests.networks import build_model


def call(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["consilium", *arguments])
    monkeypatch.delenv("CONSILIUM_DEBUG", raising=False)
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    return int(exit_.value.code or 0), said.out, said.err


def one_paragraph(error: str) -> str:
    """What standard error says of a mistake, without the lines on what was being done before."""
    lines = error.splitlines(keepends=True)
    said = "".join(line for line in lines if not line.endswith(" …\n"))
    assert said.startswith("Error: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.fixture
def refused(capsys, monkeypatch):
    """Call the command line and return its one paragraph."""

    def ask(*arguments: str) -> str:
        code, _, error = call(capsys, monkeypatch, *arguments)
        assert code == 1
        return one_paragraph(error)

    return ask


MISTAKES = {
    "unknown experiment": (["run", "tinny"], "Did you mean 'tiny'?"),
    "unknown key": (["run", "tiny", "--set", "strategy.muu=1"], "Did you mean 'mu'?"),
    "delta 2": (["ledger", "show", "tiny", "--delta", "2"], "--delta=2 is not possible"),
    "no strategy": (["compare", "tiny", "--strategies", ""], "Name some with --strategies"),
    "a folder as params": (["run", "tiny", "--params", "."], "it is a folder"),
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
        (project / "data" / "medmnist" / "bloodmnist.npz").unlink()
        assert "data.source=files, but there is no" in refused("run", "tiny")

    def test_a_corrupted_npz(self, refused, project):
        path = project / "data" / "medmnist" / "bloodmnist.npz"
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


OPTIONS = {
    "--rounds=1.5": (["run", "tiny"], "'1.5' is not possible: give a whole number of at least 1."),
    "--rounds=0": (["run", "tiny"], "'0' is not possible: give a whole number of at least 1."),
    "--seeds=0": (["compare", "tiny"], "'0' is not possible: give a whole number of at least 1."),
    "--delta=x": (["ledger", "show", "tiny"], "'x' is not possible: give a number."),
    "--epsilon=x": (["ledger", "budget", "tiny"], "'x' is not possible: give a number."),
    "--prefect-port=99999": (["serve"], "a whole number of at least 1 and at most 65535."),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_is_no_such_number_is_refused_with_what_is_possible(
    capsys, monkeypatch, project, option
):
    command, said = OPTIONS[option]
    code, _, error = call(capsys, monkeypatch, *command, option)
    words = " ".join(error.replace("│", " ").split())
    assert code == 2
    assert f"Invalid value for '{option.partition('=')[0]}'" in words
    assert said in words
    assert "Input should be" not in words


def test_where_results_cannot_be_written_it_is_said_before_anything_runs(
    refused, project, monkeypatch
):
    monkeypatch.setattr("flows.cli.run.run_rounds", lambda *_: 1 / 0)
    (project / "taken").write_text("")
    assert "taken (--export): it is a file" in refused("run", "tiny", "--export", "taken")
    said = refused("evaluate", "tiny", "--model", "m", "--out", "taken/m.json")
    assert "taken (of --out): it is a file" in said
    assert "taken (--out): it is a file" in refused(
        "predict", "--model", "m", "--out", "taken", "x.nii.gz"
    )


def test_a_port_of_the_machines_own_is_not_said_to_be_in_use(refused, project, monkeypatch):
    def denied(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("flows.serve.configured_api", lambda: None)
    monkeypatch.setattr("flows.ports.listen", denied)
    said = refused("serve", "--prefect-port", "80")
    assert "Port 80 on 127.0.0.1, meant for the Prefect server, is kept for the machine's" in said


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


def test_sites_are_shown_as_a_table_that_fits_a_terminal(capsys, monkeypatch, project, write_npz):
    code, out, _ = call(capsys, monkeypatch, "sites", "show", "tiny")
    assert code == 0
    assert "site-02" in out
    assert "platelet" in out
    # As many volumes of each split as there are in truth.
    counts = medmnist.dataset_info("organmnist3d").cases.items()
    arrays = {f"{split}_labels": np.arange(n)[:, None] % 11 for split, n in counts}
    volumes = {f"{split}_images": np.zeros((n, 28, 28, 28), np.uint8) for split, n in counts}
    write_npz(
        {name: labels.astype(np.uint8) for name, labels in arrays.items()} | volumes, "organmnist3d"
    )
    sets = ["--set", "data.dataset=organmnist3d", "--set", "sites.count=10"]
    code, out, _ = call(capsys, monkeypatch, "sites", "show", "tiny", *sets)
    head, *sites = (line.split() for line in out.splitlines() if re.match(r"site", line))
    assert head == ["site", *map(str, range(11)), "train", "val", "test"]
    assert len(sites) == 10
    assert all(len(cells) == len(head) for cells in sites)
    assert all(sum(map(int, cells[1:12])) == int(cells[12]) for cells in sites)
    assert max(len(line) for line in out.splitlines() if line.startswith("site")) <= 80


@pytest.mark.parametrize(
    "arguments", [("ledger", "show"), ("ledger", "verify"), ("ledger", "budget", "--epsilon=1")]
)
def test_the_ledger_never_downloads(capsys, monkeypatch, project, arguments):
    def download(*_):
        raise AssertionError("tried to download")

    monkeypatch.setattr(medmnist, "download", download)
    sets = ["--set", "data.dataset=organmnist3d", "--set", "data.source=medmnist"]
    command, verb, *rest = arguments
    code, out, error = call(capsys, monkeypatch, command, verb, "tiny", *rest, *sets)
    if verb == "verify":
        assert (code, error) == (0, "")
        assert "organmnist3d: whole, 0 entries" in out
    else:
        assert "there is no data/medmnist/organmnist3d.npz" in error
        assert "`consilium prepare` download it" in error


@pytest.mark.usefixtures("project")
def test_a_budget_below_what_is_spent_is_set_with_a_warning(capsys, monkeypatch):
    experiment = load_experiment("tiny")
    cases = held_cases(experiment, load(*_located()))
    ledger = holder_ledger(experiment)
    records = cases.records(["site-00"], "train")
    one = Spending("gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "tiny", "site-00")
    ledger.spend(one, records)
    ledger.spend(one, records[:4])
    used = epsilon([replace(one, steps=100).release], 1e-5, "prv")
    once = epsilon([one.release], 1e-5, "prv")
    limit = (used + once) / 2
    code, out, _ = call(capsys, monkeypatch, "ledger", "budget", "tiny", f"--epsilon={limit}")
    warning, *others = out.splitlines()
    assert code == 0
    assert warning.startswith(f"WARNING: site-00: epsilon {limit:g} at delta 1e-05 for each record")
    assert "is set, and is exceeded already." in warning
    assert f"Up to epsilon {used:.3g} is spent of 4 training records, " in warning
    assert f"{used - limit:.3g} more than the budget" in warning
    assert "nothing that touches one of these records can be entered" in warning
    assert all("WARNING" not in line and "nothing is spent" in line for line in others)
    with pytest.raises(ConsiliumError, match="has a privacy budget of"):
        ledger.spend(one, records[:1])
    limited = ("ledger", "budget", "tiny", "--epsilon=1e-3", "--unit=site")
    out = call(capsys, monkeypatch, *limited)[1]
    assert "WARNING: site-00: epsilon 0.001 at delta 1e-05 for each site is set" in out
    assert "Something of the site was released without a bound" in out


def test_a_stopped_run_prints_the_command_that_goes_on_with_it(
    capsys, monkeypatch, project, prefect_server, in_process, prepared_tiny
):
    import flows.round

    def stopped(*arguments: object) -> float:
        if arguments[1] == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    real = flows.round.run_round
    monkeypatch.setattr(flows.round, "run_round", stopped)
    code, _, error = call(
        capsys, monkeypatch, "run", "tiny", "--prepared", prepared_tiny, "--runs", "my runs"
    )
    assert code == 130
    (run_id,) = (path.name for path in Path("my runs/tiny").glob("2*"))
    command = f"consilium resume tiny {run_id} --runs 'my runs'"
    assert error.splitlines()[-1] == f"Stopped. Complete rounds are kept; go on with: {command}"
    monkeypatch.setattr(flows.round, "run_round", real)
    code, out, error = call(capsys, monkeypatch, *shlex.split(command)[1:])
    assert code == 0
    assert re.search(r"\n2 rounds; 1 round since the run was resumed, in \d+ s, of which", out)


def test_a_stopped_step_of_a_preparation_says_how_to_go_on(capsys, monkeypatch, project):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.steps.run_step", stopped)
    given = ("prepare", "tiny", "--step", "partition", "--set", "seed=3")
    code, _, error = call(capsys, monkeypatch, *given)
    assert code == 130
    wanted = "again with: consilium prepare tiny --step partition --set seed=3"
    assert error.splitlines()[-1].endswith(wanted)


def test_a_stopped_preparation_says_what_is_kept_and_how_to_go_on(
    capsys, monkeypatch, project, prefect_server
):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.prepare.validate", stopped)
    monkeypatch.setattr("flows.server.start_embedded_server", lambda: lambda: None)
    code, _, error = call(capsys, monkeypatch, "prepare", "tiny", "--set", "seed=3")
    assert code == 130
    last = error.splitlines()[-1]
    assert last.startswith("Stopped. Data that were downloaded wholly are kept")
    assert last.endswith("prepare it again with: consilium prepare tiny --set seed=3")
    assert "data/prepared/tiny is not complete" in last


def test_a_command_that_begins_nothing_is_stopped_in_one_word(capsys, monkeypatch, project):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("federated.configuration.load.load_experiment", stopped)
    code, _, error = call(capsys, monkeypatch, "sites", "show", "tiny")
    assert code == 130
    assert error.splitlines()[-1] == "Stopped."


def test_what_takes_long_says_on_standard_error_what_it_does(
    capsys, monkeypatch, refused, project, tmp_path
):
    arguments = ("predict", "--model", "none@champion", "--out", str(tmp_path / "out"), "x.png")
    code, out, error = call(capsys, monkeypatch, *arguments)
    assert (code, out) == (1, "")
    assert error.startswith("reading the model none@champion …\nError: ")
    code, out, error = call(capsys, monkeypatch, "release", "none@champion", "--out", "dossier")
    assert (code, out) == (1, "")
    assert error.startswith("reading the model none@champion and its run …\nError: ")


def test_what_an_earlier_prediction_left_is_not_replaced_without_a_word(
    capsys, monkeypatch, project, tmp_path
):
    """As the mask of another series of the same folder, which has the same name."""
    network = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    header = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
    save_model(tmp_path / "c.safetensors", network, header)
    np.savez(tmp_path / "x.npz", images=tiny_volumes()["test_images"])
    arguments = ("predict", "--model", str(tmp_path / "c.safetensors"), "--out", str(tmp_path))
    said = "Note: what an earlier prediction left there is replaced: "
    assert said not in call(capsys, monkeypatch, *arguments, str(tmp_path / "x.npz"))[1]
    code, out, _ = call(capsys, monkeypatch, *arguments, str(tmp_path / "x.npz"))
    assert code == 0
    assert f"{said}{tmp_path / 'probabilities.csv'}.\n" in out


def test_generated_images_have_no_licence(capsys, monkeypatch, project):
    shown = call(capsys, monkeypatch, "sites", "show", "tiny")[1]
    assert "Licence: " in shown
    drawn = call(capsys, monkeypatch, "sites", "show", "tiny", "--set", "data.source=phantom")[1]
    assert "(phantom)" in drawn
    assert "Licence" not in drawn


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


def test_keys_of_a_stopped_run_are_shown_and_erased(
    capsys, monkeypatch, refused, project, prefect_server, in_process, failing, prepared_tiny
):
    assert "There is no run of 'tiny'" in refused("keys", "erase", "tiny")
    assert "no key for tiny" in call(capsys, monkeypatch, "keys", "show", "tiny")[1]
    settings = ["protection.name=packed_bfv", "compression.bits=8", "runner.name=processes"]
    failing("protect site-01 1")
    with pytest.raises(ConsiliumError, match="no power"):
        fl_round("tiny", settings, prepared=prepared_tiny)
    run = latest_run(project / "runs", "tiny")
    first = read_json(run.context_path)["fingerprint"]
    shown = call(capsys, monkeypatch, "keys", "show", "tiny")[1]
    assert [shown.count(said) for said in (first, "packed_bfv", run.run_id)] == [3, 3, 3]
    home = str(run.home_path("site-01"))
    assert call(capsys, monkeypatch, "keys", "show", "tiny", "--home", home)[1].count(first) == 1
    erased = call(capsys, monkeypatch, "keys", "erase", "tiny", "--run", run.run_id, "--home", home)
    assert "at 1 site;" in erased[1]
    assert call(capsys, monkeypatch, "keys", "show", "tiny")[1].count(first) == 2
    assert "at 2 sites;" in call(capsys, monkeypatch, "keys", "erase", "tiny")[1]
    assert "no key of run" in call(capsys, monkeypatch, "keys", "erase", "tiny")[1]
    assert "no site's home" in refused("keys", "erase", "tiny", "--home", str(project))


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
    assert f"budget: {said}; training records by what is left of it:\n" in shown
    assert "does not say which cases are of one patient" in shown
    own = held_cases(load_experiment("tiny"), load(*_located())).records(["site-01"], "train")
    left = [line.split()[-1] for line in shown.splitlines() if "all 3" in line]
    assert left == [str(len(own))]
    code, out, _ = call(capsys, monkeypatch, "ledger", "verify", "tiny")
    assert code == 0
    assert "bloodmnist: whole, 1 entries" in out
    assert "agrees with the 0 heads found in runs" in out
    path = ledger_root() / "bloodmnist.jsonl"
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
    rows = [re.split(r" {2,}", line.strip()) for line in shown.splitlines()]
    found = {row[0]: row[1:] for row in rows}
    assert max(len(line) for line in shown.splitlines() if line.startswith("site")) <= 80
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
    kept = {"holder": "bloodmnist", "head": head}
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
    "keys": ("show", "erase"),
    "ledger": ("show", "verify", "budget", "migrate"),
    "sites": ("show", "join"),
}


@pytest.mark.parametrize(
    "command", [*COMMANDS, *(f"{group} {one}" for group in GROUPS for one in GROUPS[group])]
)
def test_every_command_has_help_with_an_example(capsys, monkeypatch, command):
    code, out, _ = call(capsys, monkeypatch, *command.split(), "--help")
    assert code == 0
    assert "<bool>" not in out  # an option that is given by its name alone has no value
    assert "Example" in out


@pytest.mark.usefixtures("prefect_server")
def test_a_run_says_what_it_reached_and_where_to_look(capsys, monkeypatch, project):
    code, out, _ = call(capsys, monkeypatch, "run", "tiny", "--rounds", "1")
    assert code == 0
    assert "round 1/1: validation" in out
    assert "data_source: files" in out
    assert "summary.json" in out


def crashed():
    """Prefect handles the signal as a crash of a task run that it has not made yet."""
    try:
        raise KeyboardInterrupt
    except BaseException:
        raise ValueError("Task run is not set") from None


class Stopped(BaseModel):
    """What is being written as the signal comes."""

    value: int = 0

    @field_serializer("value")
    def _interrupted(self, value: int) -> int:
        raise KeyboardInterrupt


@pytest.mark.parametrize("app", [crashed, Stopped().model_dump, Stopped().model_dump_json])
def test_a_signal_that_prefect_stumbles_over_is_a_stop_and_no_mistake(monkeypatch, capsys, app):
    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 130
    assert capsys.readouterr().err.startswith("Stopped.")
