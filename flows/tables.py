"""Tables and lines for a terminal, which may have 80 columns; no figure is ever cut."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

# The narrowest that the first column, which is text and may fold, becomes.
NARROWEST = 8


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of figures, with a name for each row in its first column.

    A name that is too long goes on in the next line; figures stay whole, and so do the lines of the
    head.
    """
    shown = list(rows)
    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    found.add_column(head[0], overflow="fold", min_width=NARROWEST)
    for number, title in enumerate(head[1:], start=1):
        cells = [*title.splitlines(), *(row[number] for row in shown)]
        widest = max(map(len, cells))
        found.add_column(title, justify="right", vertical="top", no_wrap=True, min_width=widest)
    for row in shown:
        # Another party's words may be among them: nothing in them is markup.
        found.add_row(*map(Text, row))
    return found


def show(parts: Iterable[Table | str], console: Console | None = None) -> None:
    """Print tables and sentences, which are wrapped on a terminal and whole lines elsewhere."""
    console = console or Console()
    for part in parts:
        if isinstance(part, str):
            folds = not console.is_terminal
            console.print(part, highlight=False, markup=False, soft_wrap=folds)
        else:
            console.print(part, crop=False, highlight=False)
