"""Tables of results inside a Markdown page, each between marks of its own."""

import hashlib
from pathlib import Path

from federated.errors import ConsiliumError, why_unreadable
from federated.files import write_text


def read_page(page: Path) -> str:
    """The text of a page; ``""`` if it is not there yet.

    Raises:
        ConsiliumError: the page cannot be read.
    """
    try:
        return page.read_text(encoding="utf-8") if page.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConsiliumError(
            f"The page {page} cannot be read: {why_unreadable(error)}. Name another with --results."
        ) from error


def put_table(page: Path, table: str) -> None:
    """Write a table into a page, in place of an older one of the same command, or at the end.

    The first line of ``table`` is its command; it tells tables apart.

    Raises:
        ConsiliumError: the page cannot be read, or only one of a table's two marks is in it.
    """
    key = hashlib.sha256(table.splitlines()[0].encode()).hexdigest()[:8]
    opening, closing = f"<!-- table {key} -->", f"<!-- end of table {key} -->"
    block = f"{opening}\n{table.strip()}\n{closing}"
    text = read_page(page)
    if (opening in text) != (closing in text):
        raise ConsiliumError(
            f"The page {page} has only one of the marks of table {key}. Put the other one back, or "
            "remove both."
        )
    if opening in text:
        before, _, rest = text.partition(opening)
        text = before + block + rest.partition(closing)[2]
    else:
        text = (text.rstrip() + "\n\n" if text.strip() else "") + block + "\n"
    write_text(page, text)
