"""A model card as Markdown, and as one page that loads nothing."""

import re
from collections.abc import Sequence

from federated.release.card_blocks import Block, Card, Commands, Items, Section, Table, Text
from federated.report.page import render

# What Markdown, or HTML in it, would take for something else than text.
MARKS = re.compile(r"([\\`*\[\]<>|#])")


def card_markdown(card: Card, most: int | None = None) -> str:
    """The card as Markdown; nothing that a data set or a site says is markup in it.

    Args:
        card: the card.
        most: in characters; sections that are beyond it are named and left out. ``None`` is all.
    """
    head = [f"# {_safe(card.title)}", *(_block(text) for text in card.first)]
    parts = ["\n\n".join(head)]
    parts += [_section(section) for section in card.sections]
    if most is not None:
        parts = _shortened(card, parts, most)
    return "\n\n".join(parts) + "\n"


def _shortened(card: Card, parts: Sequence[str], most: int) -> list[str]:
    """The first parts of a card, and which are left out."""
    for kept in range(len(parts), 0, -1):
        missing = [section.title for section in card.sections[kept - 1 :]]
        told = [f"In the whole card, model_card.md: {'; '.join(missing)}."] if missing else []
        found = [*parts[:kept], *told]
        if len("\n\n".join(found)) < most:
            return found
    return [parts[0][: most - 1]]


def _section(section: Section) -> str:
    return "\n\n".join([f"## {_safe(section.title)}", *map(_block, section.blocks)])


def _block(block: Block) -> str:
    match block:
        case Text(text, warns):
            return f"**{_safe(text)}**" if warns else _safe(text)
        case Items(lines):
            return "\n".join(f"- {_safe(line)}" for line in lines)
        case Commands(lines):
            return "\n".join(f"    {' '.join(line.split())}" for line in lines)
        case Table(_, heads, rows):
            table = [heads, ["---"] * len(heads), *rows]
            return "\n".join(
                f"| {' | '.join(cell if line == 1 else _safe(cell) for cell in row)} |"
                for line, row in enumerate(table)
            )


def _safe(text: str) -> str:
    return MARKS.sub(r"\\\1", " ".join(text.split()))


def card_page(card: Card) -> str:
    """The card as one HTML file that loads nothing, in the style of a run's report."""
    blocks = [
        (section.title, [(type(block).__name__, block) for block in section.blocks])
        for section in card.sections
    ]
    return render("card.html", title=card.title, first=card.first, sections=blocks)
