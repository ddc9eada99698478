"""The commands that README and docs show, each read by the parser that a person would have.

A command is a line of a fenced block without a language of its own (a block that is no command is
marked as ``text``), or code in a sentence. Code in a sentence may be less than a whole command, as
``consilium compare`` or ``consilium run adrenal --rounds R …``; a line of a block may not.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parent.parent
PARAMS = PROJECT / "params.yaml"
PAGES = tuple(
    sorted(
        [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
        + [page for page in (PROJECT / "docs").rglob("*.md") if "_site" not in page.parts]
    )
)
PROGRAMS = ("consilium", "make", "dvc", "prefect", "dask", "python", "pytest")
# Languages of blocks that hold commands: of each party, and those that are refused.
SHELLS = ("", "sh", "coordinator", "site", "refused")
BLOCK = re.compile(r"^ *```([\w-]*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
SETTING = re.compile(r"[A-Z_]+=\S+")
WITHIN = re.compile(r'eval "\$\((.*)\)"')
# What stands for something of the reader's own, and what may stand there.
PLACEHOLDERS = {
    "RUN": "20261126-101010-ab12",
    "DIR": "data",
    "NAME": "adrenal",
    "SITE": "site-00",
    "R": "3",
}
# Experiments that a page tells the reader to make, and one of params.yaml that is like it.
MADE_BY_THE_READER = {
    "mine": "chest",
    "c1": "chest",
    "c2": "chest",
    "s1": "sarcoma",
    "s2": "sarcoma",
}


@dataclass(frozen=True, order=True)
class Command:
    """A command, where it stands, and whether it is whole: a line of a block, nothing left out."""

    words: tuple[str, ...]
    page: str
    whole: bool

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def program(self) -> str:
        return self.words[0]


def commands_of(text: str, page: str) -> Iterator[Command]:
    """All commands of a page, in its order, those of blocks first."""
    for language, block in BLOCK.findall(text):
        if language in SHELLS:
            for line in block.replace("\\\n", " ").splitlines():
                yield from _commands(line, page, whole=True)
    for code in INLINE.findall(BLOCK.sub("", text)):
        yield from _commands(" ".join(code.split()), page, whole=False)


def _commands(line: str, page: str, *, whole: bool) -> Iterator[Command]:
    line = line.strip()
    if within := WITHIN.match(line):
        line = within[1]
    if not any(re.search(rf"(^|\s){program}\s", f"{line} ") for program in PROGRAMS):
        return
    words = shlex.split(line, comments=True)
    while words and SETTING.fullmatch(words[0]):
        words.pop(0)
    if words and words[0] in PROGRAMS and len(words) > 1:
        for each in _alternatives(words):
            yield Command(tuple(each), page, whole and "…" not in words)


def _alternatives(words: list[str]) -> Iterator[list[str]]:
    """``keys show|erase`` is two commands, ``--set seed=0|1`` too."""
    for place, word in enumerate(words):
        if "|" in word:
            start, _, ends = word.rpartition("=")
            for end in ends.split("|"):
                told = f"{start}={end}" if start else end
                yield from _alternatives([*words[:place], told, *words[place + 1 :]])
            return
    yield words


@cache
def documented() -> tuple[Command, ...]:
    """The commands of all pages, each once for a page."""
    found = [
        command
        for page in PAGES
        for command in commands_of(
            page.read_text(encoding="utf-8"), page.relative_to(PROJECT).as_posix()
        )
    ]
    return tuple(dict.fromkeys(found))


def filled_in(words: tuple[str, ...]) -> list[str]:
    """A command with something in the place of what is the reader's own, and without ``…``."""
    result: list[str] = []
    for word in words:
        if word in ("…", "..."):
            continue
        key, equals, value = word.rpartition("=")
        if result and result[-1] == "--set" and (word.isupper() or ".KEY" in key):
            result.pop()  # any key of a section
        else:
            told = PLACEHOLDERS.get(value, value)
            result.append(f"{key}{equals}{'3' if equals and value == 'N' else told}")
    return result


class ProgramRefusesError(AssertionError):
    """A parser does not take a command."""


@cache
def _program() -> tuple[Any, set[tuple[str, ...]], list[tuple[tuple[str, ...], dict[str, Any]]]]:
    """consilium's parser, whose commands only note that they are called; its groups; the notes."""
    import typer.main

    from flows.cli import app
    from flows.reference import leaves

    program = typer.main.get_command(app)
    called: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    groups = set()
    for path, leaf in leaves(program, ()):
        groups |= {path[:length] for length in range(1, len(path))}
        leaf.callback = lambda path=path, **given: called.append((path, given))
    return program, groups, called


def read(command: Command) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Which command of consilium's is called with what, as its parser reads it.

    Raises:
        ProgramRefusesError: it is no such command, or not one with these arguments.
    """
    from typer.exceptions import TyperException

    program, groups, called = _program()
    called.clear()
    words = filled_in(command.words)[1:]
    if not command.whole and tuple(words) in groups:
        return (), {}
    try:
        program.main(words, prog_name="consilium", standalone_mode=False)
    except TyperException as refused:
        said = refused.format_message()
        # In a sentence a command may be named without what it needs.
        short = type(refused).__name__ == "MissingParameter" or said == "Missing command."
        if command.whole or not short:
            raise ProgramRefusesError(f"{command}: {said}") from refused
    return called[0] if called else ((), {})
