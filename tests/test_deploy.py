"""Files of deployments: no Docker engine and no systemd runs here, so they are read and checked."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

import flows.cli  # noqa: F401 - every command is registered
from flows.cli.options import app
from tests.conftest import PROJECT

DEPLOY = PROJECT / "deploy"
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))
UNITS = sorted(DEPLOY.glob("*.service"))
PARTIES = ("coordinator", "site")


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, each with its arguments in one line."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def commands(text: str) -> list[list[str]]:
    """Each `consilium NAME NAME …` in a text, as its words; a line may go on in the next one."""
    plain = re.sub(r"\\\n#? *", " ", text)
    plain = re.sub(r"[\[\]\",]+", " ", plain)
    return [line.split() for line in re.findall(r"\bconsilium +((?:coordinator|sites?) .*)", plain)]


def test_there_are_files_for_coordinator_and_site():
    assert [path.stem for path in DOCKERFILES] == list(PARTIES)
    assert [path.stem for path in UNITS] == [f"consilium-{party}" for party in PARTIES]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_a_dockerfile_copies_what_there_is_and_runs_as_nobody_special(path):
    told = instructions(path)
    assert all(
        re.fullmatch(r"[a-z/]+:[0-9.]+-slim(-[a-z]+)?( AS \w+)?", a) for n, a in told if n == "FROM"
    )
    stages = {a.split()[-1] for n, a in told if n == "FROM" and " AS " in a}
    for name, arguments in told:
        if name in ("COPY", "ADD"):
            assert name == "COPY"
            words = [word for word in arguments.split() if not word.startswith("--")]
            given = re.search(r"--from=(\S+)", arguments)
            if given:
                assert given[1] in stages
                continue
            for source in words[:-1]:
                assert (PROJECT / source).exists(), source
    users = [arguments for name, arguments in told if name == "USER"]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")
    # Nothing is installed or copied as somebody else afterwards, and it says whether it is well.
    names = [name for name, _ in told]
    assert names.index("USER") > max(i for i, n in enumerate(names) if n == "RUN")
    assert "HEALTHCHECK" in names
    assert any("--require-hashes -r requirements.lock" in a for n, a in told if n == "RUN")


@pytest.mark.parametrize("path", [*DOCKERFILES, DEPLOY / "compose.yaml"], ids=lambda p: p.name)
def test_no_secret_is_in_an_image(path):
    """Neither as a value of the environment nor as an argument of the build."""
    for line in path.read_text().splitlines():
        found = re.search(r"(?i)(password|secret|token|key)\w*\s*[:=]\s*(\S+)", line.split("#")[0])
        # A file that is mounted, or the name of one.
        assert not found or found[2].startswith(("/run/secrets/", "./", "["))


def test_what_is_no_part_of_an_image_is_not_sent_to_the_builder():
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"  # closed by default
    copied = {
        word.split("/")[0]
        for path in DOCKERFILES
        for name, arguments in instructions(path)
        if name == "COPY" and "--from" not in arguments
        for word in arguments.split()[:-1]
        if not word.startswith("--")
    }
    assert {line.removeprefix("!").split("/")[0] for line in ignored[1:] if line} >= copied
    for private in ("data", "runs", "mlruns", ".git"):
        assert f"!{private}" not in ignored


def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_names_files_volumes_and_secrets_that_there_are():
    told = compose()
    assert set(told) <= {"name", "services", "volumes", "secrets", "networks"}
    for service in told["services"].values():
        if "build" in service:
            context = (DEPLOY / service["build"]["context"]).resolve()
            assert context == PROJECT
            assert (context / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in told["volumes"] or source.startswith(("./", "${"))
        for secret in service.get("secrets", []):
            assert secret in told["secrets"]
        for other in service.get("depends_on", {}):
            assert other in told["services"]
        for network in service.get("networks", []):
            assert network in told["networks"]
        assert service.get("read_only") is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_coordinators_port_is_open_to_others():
    ports = {name: service.get("ports", []) for name, service in compose()["services"].items()}
    assert {name for name, opened in ports.items() if opened} == {"coordinator"}
    assert len(ports["coordinator"]) == 1
    # A site's secrets and its data are in no volume of the coordinator's.
    volumes = {
        name: {volume.split(":")[0] for volume in service.get("volumes", [])}
        for name, service in compose()["services"].items()
    }
    assert not volumes["site"] & volumes["coordinator"]


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_as_a_user_of_its_own_and_sees_little(path):
    service = unit(path)["Service"]
    assert service["User"] not in ("root", "0")
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert (service["PrivateTmp"], service["UMask"]) == ("yes", "0077")
    assert service["ExecStart"].split()[0].startswith("/")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_no_fault_in_a_unit(path, tmp_path):
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed: the units are read by this test alone")
    # The program that it starts is not installed here, as it would be there.
    text = re.sub(
        r"^(ExecStart=)\S+", rf"\1{shutil.which('true')}", path.read_text(), flags=re.MULTILINE
    )
    copy = tmp_path / path.name
    copy.write_text(text)
    done = subprocess.run(
        [verify, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60
    )
    mine = [line for line in done.stderr.splitlines() if path.name in line]
    assert mine == []


@pytest.mark.parametrize(
    "path", [*DOCKERFILES, *UNITS, DEPLOY / "compose.yaml"], ids=lambda path: path.name
)
def test_commands_that_are_named_exist_with_their_options(path):
    known = get_command(app).commands
    named = commands(path.read_text())
    assert named
    for group, name, *words in named:
        command = known[group].commands[name]
        # Whatever is wrong with them, or lacks, ends this test as it would end the command.
        command.make_context(name, words, resilient_parsing=False)


def test_what_deployments_begin_with_is_told():
    """A home has to be made before anything starts: the files say how, for each party."""
    for path in (*UNITS, DEPLOY / "compose.yaml"):
        told = [words[:2] for words in commands(path.read_text())]
        parties = [party for party in PARTIES if party in path.stem] or list(PARTIES)
        for party in parties:
            assert [party, "init"] in told, (path.name, party)
