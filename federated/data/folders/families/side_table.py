"""Tables of text that lie beside a data set's images, as people and spreadsheets save them.

Saved again by a spreadsheet, a table may begin with a byte order mark, be separated by semicolons
or tabs, be in Latin-1, UTF-16 or UTF-32, end in empty lines, and have ``1.0`` for the number 1. All
of that is read; what is not clear is refused with the file, the line and the column.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path

from federated.data.folders.families.file_names import same_text, split_ending
from federated.errors import ConsiliumError

# Rows by the case that they are about, and in them values by column.
SideTable = Mapping[str, Mapping[str, str]]

SEPARATORS = (",", ";", "\t", "|")
# Byte order marks. That of UTF-32 comes first, because it begins as UTF-16's does.
MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
# A whole number as a spreadsheet writes it, with a point or a comma.
WHOLE = re.compile(r"([+-]?\d+)[.,]0+")
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
# What a comma means here nobody can tell.
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# What stands in a cell of which nothing is known; it is not a name that cases share.
UNKNOWN = (
    *("", "na", "n/a", "n.a.", "#n/a", "<na>", "nan", "nat", "null", "none", "nil", "(null)"),
    *("unknown", "missing", "not available", "not known", "undefined", "-", "--", "---", "?", "."),
    *("#value!", "#ref!", "#name?", "#null!"),
)
NAMED = 3
# What to do about columns that a table lacks, from these and those that it has.
Advice = Callable[[Sequence[str], Sequence[str]], str]


def read_side_table(
    path: Path,
    known: Iterable[str],
    *,
    key: str,
    needed: Sequence[str],
    optional: Sequence[str] = (),
) -> SideTable:
    """The rows of a table about ``known`` cases, by their names.

    Columns are found in upper or lower case. A cell that says that nothing is known, as ``NA``, is
    ``""``.

    Args:
        path: the table.
        known: the names of the cases.
        key: the column that names the case, as its file does with or without an ending.
        needed: further columns that have to be there.
        optional: columns that are ``""`` where they are not there.

    Raises:
        ConsiliumError: the file is not such a table; two rows about one case differ in these
            columns; or no row is about a known case, so that the names must be others.
    """
    header, lines = table_lines(path, (key, *needed))
    cases = set(known)
    table: dict[str, dict[str, str]] = {}
    at: dict[str, int] = {}
    names, clashes = [], []
    for number, cells in lines:
        row = dict(zip(header, cells, strict=True))
        names.append(row[key.lower()])
        case = _case(names[-1], cases)
        if case is None:
            continue
        values = {
            column: known_value(row.get(column.lower(), "")) for column in (*needed, *optional)
        }
        if table.setdefault(case, values) != values:
            clashes.append(f"lines {at[case]} and {number} of {case}")
        at.setdefault(case, number)
    if clashes:
        raise ConsiliumError(
            f"The table {path} says different things of one case in {'; '.join(clashes)}. Keep "
            "the line of each that is right."
        )
    if cases and not table:
        raise ConsiliumError(
            f"No line of the table {path} is about a case of this folder: the column {key} has "
            f"{_some(names)}, and the cases are {_some(sorted(cases))}. Put the cases' names "
            "there as their files have them, or take the table away."
        )
    return table


def whole_number(text: str, path: Path, column: str, name: str) -> int:
    """A cell as a whole number that is not negative.

    Raises:
        ConsiliumError: the cell is something else.
    """
    if not re.fullmatch(r"\+?\d+", text):
        raise ConsiliumError(
            f"The column {column} of the table {path} has {text!r} for {name}. A whole number is "
            "expected, such as 3."
        )
    return int(text)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NAMED]) or "nothing"
    return f"{shown} and others" if len(names) > NAMED else shown


def _case(text: str, cases: set[str]) -> str | None:
    """The case that a cell names by its name, its file's, or its number as a spreadsheet has it."""
    name = same_text(text)
    for candidate in (name, split_ending(name)[0], _plain(name)):
        if candidate in cases:
            return candidate
    return None


def _save_as_text(_missing: Sequence[str], _there: Sequence[str]) -> str:
    return "Save it as text with these columns, separated by commas, semicolons or tabs (CSV)."


def known_value(text: str) -> str:
    """A cell, ``""`` where it says that nothing is known."""
    return "" if text.lower() in UNKNOWN else _plain(same_text(text))


def known_number(text: str) -> float | None:
    """The finite number of a cell, with a decimal point or comma; ``None`` where there is none.

    A cell as ``1,500`` is none: it could be one and a half, or fifteen hundred.
    """
    plain = known_value(text)
    # Of `1,000` only the cell itself shows it.
    if not NUMBER.fullmatch(plain) or THOUSANDS.fullmatch(same_text(text)):
        return None
    number = float(plain.replace(",", "."))
    return number if isfinite(number) else None


def _plain(text: str) -> str:
    """A cell, and ``1`` for the ``1.0`` that a spreadsheet makes of it."""
    match = WHOLE.fullmatch(text)
    return match[1] if match else text


def table_lines(
    path: Path, needed: Sequence[str], advice: Advice = _save_as_text
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header in lower case, and the rows, each as long, with the numbers of their lines.

    Args:
        path: the table.
        needed: the columns that it has to have.
        advice: what to do where it lacks some, from these and the columns that are there.

    Raises:
        ConsiliumError: the file is no table, or does not have the ``needed`` columns, each once.
    """
    text = _text(path)
    wanted = [column.lower() for column in needed]
    first: list[str] = []
    for separator in _separators(text):
        lines = _split(path, text, separator)
        header = [cell.lower() for cell in lines[0][1]] if lines else []
        if all(header.count(column) == 1 for column in wanted):
            return header, [
                (number, _as_long(path, number, row, header)) for number, row in lines[1:]
            ]
        first = header if len(header) > len(first) else first
    missing = [column for column in needed if first.count(column.lower()) != 1]
    twice = any(column.lower() in first for column in missing)
    fault = (
        f"{'is' if len(missing) == 1 else 'are'} {'not there exactly once' if twice else 'missing'}"
    )
    raise ConsiliumError(
        f"The table {path} does not have the columns {', '.join(needed)}, each once, in its first "
        f"line, which is {', '.join(first)[:200]!r}: {' and '.join(missing)} {fault}. "
        f"{advice(missing, first)}"
    )


def any_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """As :func:`table_lines`, of a table whose columns nobody has named yet.

    Its separator is the one that gives most columns.

    Raises:
        ConsiliumError: the file is no table, or is empty.
    """
    text = _text(path)
    found: list[tuple[int, list[str]]] = []
    faults: list[ConsiliumError] = []
    for separator in _separators(text):
        try:
            lines = _split(path, text, separator)
        except ConsiliumError as error:
            faults.append(error)
            continue
        if lines and (not found or len(lines[0][1]) > len(found[0][1])):
            found = lines
    if not found:
        raise faults[0] if faults else ConsiliumError(f"The table {path} is empty.")
    header = [cell.lower() for cell in found[0][1]]
    return header, [(number, _as_long(path, number, row, header)) for number, row in found[1:]]


def _as_long(path: Path, number: int, row: list[str], header: Sequence[str]) -> list[str]:
    if len(row) > len(header):
        raise ConsiliumError(
            f"Line {number} of the table {path} has {len(row)} cells, and its header has "
            f"{len(header)} columns. Put cells that hold a separator in quotes."
        )
    return [*row, *[""] * (len(header) - len(row))]


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConsiliumError(
            f"The table {path} cannot be read ({error.strerror}). Make it readable to you."
        ) from error
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    if b"\0" in content or content.startswith(b"PK"):
        raise ConsiliumError(
            f"The table {path} is no text; it may be a spreadsheet's own file. Save it as CSV."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _separators(text: str) -> Sequence[str]:
    """The separators to try: the one that a first line ``sep=;`` names, or else all."""
    named = re.match(r"sep=(.)\r?\n", text)
    return (named[1],) if named else SEPARATORS


def _split(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    result = []
    try:
        for cells in reader:
            stripped = [cell.strip().strip("﻿") for cell in cells]
            while stripped and not stripped[-1]:
                stripped.pop()
            if stripped and not re.fullmatch("sep=.?", stripped[0]):
                result.append((reader.line_num, stripped))
    except csv.Error as error:
        raise ConsiliumError(
            f"Line {reader.line_num} of the table {path} cannot be read as CSV ({error}). Save it "
            "again as CSV."
        ) from error
    return result
