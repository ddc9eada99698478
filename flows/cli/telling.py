"""Telling a person a line that may hold another party's words."""

from rich.console import Console

from federated.errors import printable


def tell(line: str) -> None:
    """Print a line in which nothing is obeyed by a terminal, or by Rich."""
    Console().print(printable(line), highlight=False, markup=False, soft_wrap=True)


def stage(line: str) -> None:
    """Say on standard error what is being done now, so that what is printed can go on as data."""
    console = Console(stderr=True)
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
