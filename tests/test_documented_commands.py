"""Every command in README and docs is one that its program takes, and is executed by some test."""

import ast
import re
import shlex
import subprocess
from functools import cache
from inspect import signature
from pathlib import Path

import pytest

from federated.comparison.grid import planned_runs
from federated.configuration.load import (
    load_experiment,
    transfer_overrides,
)
from federated.configuration.params_file import PRETRAIN, experiment_names
from tests.documented_commands import (
    MADE_BY_THE_READER,
    PARAMS,
    PROJECT,
    Command,
    ProgramRefusesError,
    commands_of,
    documented,
    filled_in,
    read,
)
from tests.documented_tests import EXECUTED


def of(program: str) -> list[Command]:
    return [command for command in documented() if command.program == program]


@cache
def called() -> dict[Command, tuple[tuple[str, ...], dict[str, object]]]:
    """What consilium's commands call, with what."""
    return {command: read(command) for command in of("consilium")}


def test_consilium_takes_each_of_its_commands():
    assert len(called()) > 100


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("consilium rnu demo", "No such command 'rnu'"),
        ("consilium run demo --round 3", "No such option"),
        ("consilium run demo --rounds three", "'three' is not possible"),
        ("consilium ledger budget demo", "--epsilon"),
    ],
)
def test_a_command_that_its_program_does_not_take_is_found(line, said):
    (command,) = commands_of(f"```\n{line}\n```\n", "a page")
    with pytest.raises(ProgramRefusesError, match=re.escape(said)):
        read(command)


def test_experiments_settings_and_strategies_of_commands_can_be_used(monkeypatch):
    """Each is resolved as the command would, from the project's own params.yaml."""
    monkeypatch.chdir(PROJECT)
    for command, (path, given) in called().items():
        experiment = given.get("experiment")
        if isinstance(experiment, str):
            name = MADE_BY_THE_READER.get(experiment, experiment)
            sets = [str(each) for each in given.get("sets") or ()]
            _use(command, path, name, sets, given)
        elif "backbone" in given:
            assert load_experiment(f"{PRETRAIN}{given['backbone']}", (), PARAMS), command


def _use(command, path, name, sets, given):
    if path == ("compare",):
        labels = str(given["strategies"]).split(",")
        assert planned_runs(name, labels, 1, sets, PARAMS), command
        return
    if given.get("rounds"):
        sets = [*sets, f"rounds={given['rounds']}"]
    if given.get("transfer"):
        sets = [*transfer_overrides(name, PARAMS), *sets]
    assert name in experiment_names(PARAMS), command
    assert load_experiment(name, sets, PARAMS, plans=True), command


def test_make_takes_each_of_its_commands():
    commands = {tuple(filled_in(command.words)) for command in of("make")}
    assert len(commands) > 8
    for words in commands:
        told = subprocess.run(
            ["make", "-n", *words[1:]], cwd=PROJECT, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, f"{words}: {told.stderr}"


def test_dvc_takes_each_of_its_commands_for_stages_and_keys_that_are_there():
    import yaml
    from dvc.cli.parser import get_main_parser

    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
    params = yaml.safe_load(PARAMS.read_text())
    assert of("dvc")
    for command in of("dvc"):
        given = get_main_parser().parse_args(list(command.words[1:]))
        for target in given.targets:
            stage, _, key = target.partition("@")
            assert key in params[stages[stage]["foreach"].strip("${}")], command
        for item in getattr(given, "set_param", None) or ():
            _, name, setting = item.split(".", 2)
            assert load_experiment(name, [setting], PARAMS), command


def test_prefect_takes_each_of_its_commands_for_deployments_that_are_there():
    import cyclopts
    from prefect.cli import app

    from flows.round import fl_round
    from flows.site_statistics import fl_statistics

    offered = {flow.name: set(signature(flow.fn).parameters) for flow in (fl_round, fl_statistics)}
    assert of("prefect")
    for command in of("prefect"):
        words = filled_in(command.words)[1:]
        try:
            _, given, _ = _prefect_parser().parse_args(
                words, exit_on_error=False, print_error=False
            )
        except cyclopts.CycloptsError as error:
            raise AssertionError(f"{command}: {error}") from error
        if words[:2] == ["deployment", "run"]:
            flow, _, experiment = words[2].partition("/")
            assert experiment in experiment_names(PARAMS), command
            names = {item.split("=")[0] for item in given.arguments.get("params") or ()}
            assert names <= offered[flow], command
        for word in words:
            assert not word.endswith(".yaml") or (PROJECT / word).is_file(), command
    assert callable(app)


def _prefect_parser():
    from prefect.cli._app import _app

    return _app


def test_dasks_own_programs_take_each_of_its_commands():
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    from distributed.cli.dask_scheduler import main as scheduler
    from distributed.cli.dask_worker import main as worker

    programs = {"scheduler": scheduler, "worker": worker}
    for command in of("dask"):
        assert programs[command.words[1]].make_context("dask", list(command.words[2:])), command


def test_scripts_and_tests_that_are_named_are_there_and_have_the_options():
    for command in (*of("python"), *of("pytest")):
        words = list(command.words[1:])
        if command.words[:3] == ("python", "-m", "pytest"):
            words = words[2:]
        elif command.program == "python":
            words = words[1:] if words[0] == "-m" else words
            words[0] = words[0] if words[0].endswith(".py") else f"{words[0].replace('.', '/')}.py"
            script = PROJECT / words[0]
            script = script if script.is_file() else script.with_suffix("") / "__main__.py"
            if words[0] in OF_PYTHON_ITSELF:
                continue
            text = script.read_text(encoding="utf-8") + _beside(script)
            for option in [word.partition("=")[0] for word in words if word.startswith("--")]:
                known = f'"{option}"' in text or f"{option[2:].replace('-', '_')}:" in text
                assert known, command
            continue
        for word in words:
            if word.startswith("tests/"):
                assert (PROJECT / word.partition("::")[0]).exists(), command


# Modules of Python's, by the files that they would be here.
OF_PYTHON_ITSELF = {"http/server.py"}


def _beside(script: Path) -> str:
    """The text of the script's neighbours that it takes its options from."""
    return "".join(
        path.read_text(encoding="utf-8")
        for path in script.parent.glob("*.py")
        if f"import {path.stem}" in script.read_text(encoding="utf-8")
        or f".{path.stem} import" in script.read_text(encoding="utf-8")
    )


class TestRegister:
    """Which test executes what the pages show."""

    def test_each_command_of_consilium_is_executed_by_a_test(self):
        told = {" ".join(path) for path, _ in called().values() if path}
        assert told - {*EXECUTED} == set()

    def test_each_test_that_the_register_names_is_there_and_runs_that_command(self):
        for name, told in EXECUTED.items():
            test, _, read_from = told.partition(" through ")
            file, _, function = test.partition("::")
            text = (PROJECT / file).read_text(encoding="utf-8")
            defined = {
                each.name for each in ast.walk(ast.parse(text)) if isinstance(each, ast.FunctionDef)
            }
            assert function.rpartition("::")[2] in defined, test
            pages = (PROJECT / read_from).read_text("utf-8") if read_from else _page_of(text)
            assert _says(text, name) or _says(pages, name), f"{test}: {name}"


def _says(text: str, name: str) -> bool:
    """Whether a text has the words of a command, as a command line or as arguments."""
    words = name.split()
    arguments = ", ".join(f'"{word}"' for word in words)
    return f"consilium {name}" in text or arguments in text or f'"{name} ' in text


def _page_of(text: str) -> str:
    """The pages that a test executes."""
    pages = re.findall(r'"docs" / "([\w-]+\.md)"|"(docs/[\w/-]+\.md)"', text)
    return "".join(
        (PROJECT / (whole or f"docs/{name}")).read_text(encoding="utf-8") for name, whole in pages
    )


class TestHelp:
    """`--help` of the program, its groups and its commands."""

    @staticmethod
    def examples():
        import typer.main

        from flows.cli import app

        def walk(command, path):
            yield path, command
            for name, inner in getattr(command, "commands", {}).items():
                yield from walk(inner, (*path, name))

        return walk(typer.main.get_command(app), ())

    def test_each_has_an_example_that_its_parser_takes(self, monkeypatch):
        monkeypatch.chdir(PROJECT)
        seen = 0
        for path, command in self.examples():
            assert command.epilog, f"consilium {' '.join(path)} has no example"
            assert command.epilog.startswith("Example: consilium "), command.epilog
            line = command.epilog.removeprefix("Example: ")
            (example,) = commands_of(f"```\n{line}\n```\n", f"--help of {' '.join(path)}")
            found, given = read(example)
            assert found[: len(path)] == path, example
            if isinstance(name := given.get("experiment"), str):
                _use(example, found, name, [str(s) for s in given.get("sets") or ()], given)
            seen += 1
        assert seen > 40

    def test_each_is_shown_with_its_example(self, capsys):
        """What a person sees, without starting a process for each."""
        import typer.main

        from flows.cli import app

        for path, command in self.examples():
            typer.main.get_command(app).main(
                [*path, "--help"], prog_name="consilium", standalone_mode=False
            )
            shown = re.sub(r"\s+", " ", capsys.readouterr().out)
            assert shlex.split(command.epilog)[-1] in shown, path
