"""What every public function of the library owes its reader."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
# Beyond so many parameters each is described; beyond the most, they want a value of their own.
DESCRIBED, MOST = 5, 8


def public_functions() -> Iterator[tuple[str, ast.FunctionDef, list[str]]]:
    """Functions and methods of modules and classes, with the names of their parameters."""
    for package in ("federated", "models"):
        for path in sorted((PROJECT / package).rglob("*.py")):
            module = ast.parse(path.read_text(encoding="utf-8"))
            bodies = [module.body, *(n.body for n in module.body if isinstance(n, ast.ClassDef))]
            for node in (node for body in bodies for node in body):
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                    given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    names = [a.arg for a in given if a.arg not in ("self", "cls")]
                    where = f"{path.relative_to(PROJECT)}::{node.name}"
                    yield where, node, names


@pytest.mark.parametrize("package", ["federated", "models"])
def test_there_are_functions_to_look_at(package):
    assert sum(where.startswith(package) for where, _, _ in public_functions()) > 10


def test_five_parameters_or_more_are_described():
    silent = [
        where
        for where, node, names in public_functions()
        if len(names) >= DESCRIBED and "Args:" not in (ast.get_docstring(node) or "")
    ]
    assert silent == []


def test_no_function_takes_more_than_eight_parameters():
    assert [where for where, _, names in public_functions() if len(names) > MOST] == []
