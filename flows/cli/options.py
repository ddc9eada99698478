"""The command line's application, and the options that several commands share."""

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.models import CommandFunctionType


class Program(typer.Typer):
    """Commands in whose help an option that is given by its name alone has no type beside it."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=_Group, **settings)

    def command(
        self, *given: Any, **named: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As Typer's own."""
        return super().command(*given, **{"cls": _Command, **named})


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_without_type(super().get_params(ctx))


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _flags_without_type(super().get_params(ctx))


def _flags_without_type(options: Sequence[Any]) -> list[Any]:
    for option in options:
        if isinstance(option, TyperOption) and option.is_bool_flag and option.metavar is None:
            option.metavar = ""
    return list(options)


app = Program(
    name="consilium",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Federated learning on medical images: a round is a pipeline to watch, resume, repeat.",
    epilog="Example: consilium run demo",
)

ExperimentName = Annotated[str, typer.Argument(help="An experiment of params.yaml.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one value, as strategy.mu=0.1."),
]
Params = Annotated[Path, typer.Option(help="The parameter file.")]
Runs = Annotated[Path, typer.Option(help="The folder that holds all runs.")]


def whole_number(least: int = 1, most: float = inf) -> Any:
    """The options of a whole number from ``least`` to ``most``, whose refusal says so."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            limits = f"at least {least}" if most == inf else f"at least {least} and at most {most}"
            raise typer.BadParameter(f"{text!r} is not possible: give a whole number of {limits}.")
        return number

    return {"parser": parse, "metavar": "INTEGER"}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not possible: give a number.") from None


# The options of a number.
NUMBER: dict[str, Any] = {"parser": _number, "metavar": "NUMBER"}

Rounds = Annotated[int | None, typer.Option(help="Rounds in all.", **whole_number())]

PARAMS = Path("params.yaml")
RUNS = Path("runs")
