"""Pages that lead through commands: each of them, in its order, on data that take seconds."""

import os
import shlex
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

import flows.server
from federated.files import read_json
from flows.cli import main
from tasks.track import client
from tests.conftest import PROJECT, TINY_PARAMS
from tests.documented_commands import BLOCK
from tests.federated.release.inside import files_of, found_in

pytestmark = pytest.mark.usefixtures("plainly", "in_process")

# What is not consilium's: `make setup` is how every test gets here.
OF_THE_SHELL = ("make setup", "source .venv/bin/activate")


@pytest.fixture
def consilium(project, monkeypatch, capsys):
    """Call consilium as a terminal does; a flow is called as the function that it is.

    That Prefect runs flows from the command line is seen where runs are killed, resumed and served
    (tests/system).
    """
    monkeypatch.setattr(flows.server, "start_embedded_server", lambda: lambda: None)

    def call(line: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        monkeypatch.delenv("CONSILIUM_DEBUG", raising=False)
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        else:
            code = 0
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def experiments(project, *names: str) -> None:
    """The tiny experiment under the names that a page has.

    Its sites are of one size, so that the noise for a target is looked for once and not for each.
    """
    tiny = TINY_PARAMS["experiments"]["tiny"] | {"sites": {"count": 3, "partition": "iid"}}
    params = TINY_PARAMS | {"experiments": dict.fromkeys(names, tiny)}
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def steps(page: str):
    """The lines of a page's commands, each with whether it is to be refused."""
    for language, block in BLOCK.findall((PROJECT / page).read_text(encoding="utf-8")):
        if language in ("", "refused"):
            for line in block.replace("\\\n", " ").splitlines():
                yield line.strip(), language == "refused"


@pytest.mark.parametrize("page", ["docs/tutorial.md", "docs/how-to/budgets.md"])
def test_a_page_leads_through_its_commands(project, consilium, monkeypatch, page):
    experiments(project, "demo", "adrenal")
    said, own = {}, dict(os.environ)
    for line, refused in steps(page):
        if line in OF_THE_SHELL:
            continue
        if line.startswith("export "):
            name, value = line.removeprefix("export ").split("=")
            monkeypatch.setenv(name, value.replace("$PWD", str(project)))
        elif line.startswith("unset "):
            name = line.removeprefix("unset ")
            monkeypatch.setenv(name, own[name])  # what it is without the page
        else:
            code, told = consilium(line)
            # Of this machine `doctor` may find something missing; that it says.
            assert (code == 1) == refused or "doctor" in line, f"{line}\n{told}"
            assert "Traceback" not in told
            if refused:
                assert told.splitlines()[-1].startswith("Error: "), told
                assert "budget" in told, told
            said[line] = told
    if page == "docs/tutorial.md":
        _as_the_tutorial_says(project, said)


def _as_the_tutorial_says(project, said):
    assert "no guarantee" in _of_a_site(said["consilium ledger show demo"])
    told = _of_a_site(said["consilium ledger show demo --delta 1e-4"])
    assert 0 < float(told.split()[4]) <= 8  # after the site, its records, entries and runs
    summary = read_json(project / "runs" / "demo" / "latest" / "summary.json")
    assert summary["metrics"]["test"]["auc"] is not None
    assert (project / "runs" / "demo" / "latest" / "model.safetensors").is_file()
    (compared,) = [text for line, text in said.items() if line.startswith("consilium compare")]
    assert "fedprox:mu=0.01" in compared


def _of_a_site(shown: str) -> str:
    """The first line of a table that is of site-00."""
    return next(line for line in shown.splitlines() if "site-00" in line).strip(" │|")


def with_what_it_is_calibrated(run):
    """A finished run's summary, its model and its page have the same of its calibration."""
    from federated.files import read_json
    from federated.weights.model_file import read_header

    summary = read_json(run / "summary.json")
    told, kept = summary["calibration"], read_header(run / "model.safetensors").calibration
    assert kept.temperature == told["temperature"]["temperature"]
    assert kept.alpha == told["conformal"]["alpha"] == 0.2
    assert kept.threshold == told["conformal"]["pooled"]["threshold"]
    assert set(kept.sites) == set(told["conformal"]["sites"]) == set(summary["sites"])
    cases = sum(each["own"]["cases"] for each in told["conformal"]["sites"].values())
    assert told["conformal"]["pooled"]["cases"] == cases > 0
    assert "what probabilities and sets of classes promise" in (run / "report.html").read_text()


def test_commands_that_no_page_leads_through(project, consilium, tmp_path):
    """One after the other on one project; each is known by its words in documented_tests.py."""
    import numpy as np

    from tests.conftest import tiny_pictures
    from tests.described_sets import picture_set

    experiments(project, "tiny")

    def do(line: str, says: str) -> str:
        code, told = consilium(line)
        assert code == 0, f"{line}\n{told}"
        assert says in " ".join(told.split()), f"{line}\n{told}"
        return told

    calibrated = "--set evaluation.calibration=temperature --set evaluation.conformal.alpha=0.2"
    do(
        f"consilium run tiny --rounds 1 --set strategy.name=fedper {calibrated} "
        f"--set data.root={project / 'data'}",
        "prediction sets, asked for 0.8: test coverage by one threshold all sites",
    )
    with_what_it_is_calibrated(project / "runs" / "tiny" / "latest")
    clinic = project / "clinic" / "medmnist" / "bloodmnist.npz"
    clinic.parent.mkdir(parents=True)
    np.savez(clinic, **tiny_pictures(seed=5))
    do("consilium sites join tiny --site clinic-x --data clinic --rounds 1", "summary.json")
    np.savez(project / "scan.npz", test_images=tiny_pictures()["test_images"][:2])
    do(
        "consilium predict --model tiny.clinic-x@champion --out out scan.npz",
        "out/probabilities.csv out/probabilities.json",
    )
    told = read_json(project / "out" / "probabilities.json")
    assert (told["model"], told["version"], told["site"]) == ("tiny.clinic-x", "1", None)
    code, told = consilium("consilium predict --model tiny@1 --site site-77 --out a/b scan.npz")
    assert (code, "none of 'site-77'" in " ".join(told.split())) == (1, True)
    assert not (project / "a").exists()
    do("consilium release tiny.site-00@1 --out dossier --licence CC-BY-4.0", "signed by")
    do("consilium verify dossier", "it is of the model tiny.site-00, version 1")
    _as_the_page_of_releases_says(project, consilium)
    home = "runs/tiny/latest/sites/site-00"
    do(f"consilium site show --home {home}", "nothing waits for a decision")
    for line in ("consilium site approve x", "consilium site refuse x"):
        code, told = consilium(f"{line} --home {home}")
        assert (code, "Nothing of run x waits" in told) == (1, True)
    do("consilium report tiny", "report.html")
    do("consilium watch tiny", "done")
    assert "Nobody works on run" in consilium("consilium pause tiny")[1]
    do("consilium statistics tiny", "training cases")
    picture_set(project / "data" / "mine")
    do("consilium data init data/mine", "dataset.yaml")
    do("consilium data check data/mine --out looked", "these data break no rule of validation")


def _as_the_page_of_releases_says(project, consilium):
    from safetensors import safe_open

    from federated.weights.model_file import load_model
    from tasks.registered_model import registered_weights

    dossier = project / "dossier"
    held = {path.relative_to(dossier).as_posix() for path in dossier.rglob("*") if path.is_file()}
    page = (PROJECT / "docs/how-to/release.md").read_text(encoding="utf-8")
    for named in held - {name for name in held if name.startswith("bundle/")}:
        assert f"`{named}`" in page, named
    machine = {str(place) for place in (project, PROJECT, Path.home(), Path(sys.prefix))}
    assert found_in(files_of(dossier), machine) == []
    assert "data.root=…/data" in (dossier / "model_card.md").read_text()
    assert read_json(dossier / "config.json")["data"]["root"] == "…/data"
    checks = read_json(dossier / "checks.json")["compared_with_torch"]
    assert all(each["equal"] for each in checks.values())
    # The registered file has all sites' tensors, and the dossier this site's alone.
    registered = registered_weights("tiny.site-00@1")
    with safe_open(dossier / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "/" in name]  # noqa: SIM118
    released, own = (
        load_model(dossier / "model.safetensors"),
        load_model(registered.path, "site-00"),
    )
    assert released.state_dict().keys() == own.state_dict().keys()
    for name, tensor in own.state_dict().items():
        assert (released.state_dict()[name] == tensor).all(), name
    assert "tiny.site-00, version 1" in (dossier / "model_card.md").read_text()
    described = client().get_model_version("tiny.site-00", "1")
    assert described.description.startswith("# Model card: tiny.site-00, version 1")
    assert len(described.description) <= 5000
    (kept,) = client().list_artifacts(described.run_id, "dossier")
    assert kept.path.startswith("dossier/tiny.site-00-1-")
    files = client().list_artifacts(described.run_id, kept.path)
    assert f"{kept.path}/manifest.json" in [each.path for each in files]
    for line, said in (
        ("release tiny@champion --out other", "is personalised"),
        ("release tiny.clinic-x@champion --out other", "joined a federation later"),
        ("release scan.npz --out other", "is a file"),
        ("release tiny@champion", "Missing option"),
        ("release tiny.site-00@1 --out dossier", "is there already"),
        ("release tiny.site-00@1 --out .", "the folder that you are in"),
        ("verify dossier --key 00", "not of whom you name"),
    ):
        code, told = consilium(f"consilium {line}")
        assert code != 0, told
        assert said in " ".join(told.split()), told
        assert "Traceback" not in told
    assert not (project / "other").exists()
    weights = dossier / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, told = consilium("consilium verify dossier")
    assert code == 1
    assert "changed: model.safetensors" in told


def test_commands_of_a_consortium_that_begin_nothing(project, consilium, write_npz):
    do = partial(_does, consilium)
    do("consilium coordinator init --name 127.0.0.1 --port 8443")
    do("consilium site init clinic-x --kit consilium-kit.json --data data")
    assert "enrolled clinic-x" in do("consilium sites enrol clinic-x.enrolment.json")
    assert "suspended clinic-x" in do("consilium sites suspend clinic-x")
    assert "suspended" in do("consilium sites list")
    assert "removed clinic-x" in do("consilium sites remove clinic-x")
    assert "clinic-x does nothing more" in do("consilium site pause")
    do("consilium site resume")


def _does(consilium, line):
    code, told = consilium(line)
    assert code == 0, f"{line}\n{told}"
    return told
