"""What a model card is made of: paragraphs, lists, tables and commands, in sections."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from federated.report.drawing import clean

# Before what nobody has done or told.
NOT_RUN = "Not run."
# In characters, with its interval.
LONGEST_NUMBER = 24


@dataclass(frozen=True)
class Text:
    """A paragraph; ``warns`` where a reader must not miss it."""

    text: str
    warns: bool = False


@dataclass(frozen=True)
class Items:
    """A list of lines."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it."""

    name: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def of_numbers(self) -> bool:
        """Whether all cells beside the names are short, as numbers are."""
        return all(len(cell) <= LONGEST_NUMBER for row in self.rows for cell in row[1:])


@dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


Block = Text | Items | Table | Commands


@dataclass(frozen=True)
class Section:
    """A part of a card."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Card:
    """A model card. ``first`` stands before everything else."""

    title: str
    first: Sequence[Text]
    sections: Sequence[Section]


def texts(lines: Sequence[str]) -> list[Block]:
    """Lines of a page as paragraphs."""
    return [Text(plain(line)) for line in lines]


def plain(value: object) -> str:
    """A sentence or a number of a page as text, without control characters."""
    text = value.striptags() if isinstance(value, Markup) else str(value)
    return clean(text)


def plains(cells: Sequence[object]) -> list[str]:
    """The cells of a row as text."""
    return [plain(cell) for cell in cells]
