"""The columns of a table ``cases.csv`` and what each of them means; no file is looked for.

A column whose meaning nobody has said is refused: it may be the one that matters.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from federated.data.folders.families.side_table import table_lines
from federated.errors import ConsiliumError
from federated.settings.description import Description

CASES = "cases.csv"
DESCRIPTION = "dataset.yaml"
# Attributes that need no mention: they are counted, and decide nothing.
ATTRIBUTES = ("age", "sex", "scanner")
# Columns that play the role of their own name.
PLAYED = {"case", "patient", "site", "split", "image", "mask", "label", *ATTRIBUTES}


@dataclass(frozen=True)
class Roles:
    """The columns of one table in lower case, by what they mean; a role may have none."""

    case: str | None
    patient: str | None
    site: str | None
    split: str | None
    images: tuple[str, ...]
    mask: str | None
    labels: tuple[str, ...]
    attributes: tuple[str, ...]
    ignored: tuple[str, ...]
    features: tuple[str, ...] = ()

    def used(self) -> tuple[str, ...]:
        """The columns whose cells may not be empty."""
        single = (self.case, self.patient, self.site, self.split, self.mask)
        return (
            *(column for column in single if column),
            *self.images,
            *self.labels,
            *self.features,
        )


@dataclass(frozen=True)
class Row:
    """A line of a table: its number, and its cells by column."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class CaseTable:
    """A table whose columns are all known, before a file of it was looked for."""

    path: Path
    roles: Roles
    rows: tuple[Row, ...]


def read_table(path: Path, description: Description) -> CaseTable:
    """A table with the meaning of each of its columns; no file that it names is looked for.

    Raises:
        ConsiliumError: it cannot be read, lacks a column, has one twice, has one whose meaning
            nobody has said, or has no row.
    """
    if not path.is_file():
        raise ConsiliumError(
            f"There is no table {path}, which {DESCRIPTION} beside it describes. Put it there, "
            "with a line for each case; `consilium data init` proposes one from the files."
        )
    needed = [column.lower() for column in _needed(description)]
    header, lines = table_lines(path, needed, partial(_advice, description))
    roles = _roles(path, header, description)
    if not lines:
        raise ConsiliumError(f"The table {path} has a header and no case. Give each case a line.")
    rows = tuple(Row(number, dict(zip(header, cells, strict=True))) for number, cells in lines)
    return CaseTable(path, roles, rows)


def _needed(description: Description) -> list[str]:
    """The columns that have to be there: those that are stated, and those that the task needs."""
    columns = description.columns
    needed = [*columns.named(), *image_columns(description)]
    needed += description.features.names if description.features else ()
    if description.segments and columns.mask is None:
        needed.append("mask")
    if not description.segments and not columns.labels:
        needed.append("label")
    return list(dict.fromkeys(needed))


def _advice(description: Description, missing: Sequence[str], there: Sequence[str]) -> str:
    """What to do about columns that a table lacks: rename them there, or in the description."""
    columns = description.columns
    stated = {name.lower() for name in columns.named()}
    featured = set(description.features.names if description.features else ())
    by_file = [name for name in missing if name.lower() in stated | featured]
    by_role = [name for name in missing if name not in by_file]
    said = []
    if by_file:
        section = "columns" if by_file[0].lower() in stated else "features"
        said.append(
            f"{DESCRIPTION} names {', '.join(by_file)} under `{section}:`: write there the name "
            "that the column has in the table, or rename it in the table"
        )
    if by_role:
        free = [name for name in there if name not in stated | featured | PLAYED]
        one = free[-1] if free else "ITS_NAME"
        one = one if one.isidentifier() else json.dumps(one)
        role = by_role[0] if by_role[0] in ("mask", "label") else "images"
        images = ", ".join(one if name in by_role else name for name in image_columns(description))
        value = one if role != "images" else f"[{images}]"
        said.append(
            "Rename a column in the table, which has to be text, separated by commas, semicolons "
            f"or tabs (CSV); or say in {DESCRIPTION} which column it is, as columns: "
            f"{{{role}: {value}}}"
        )
    return ". ".join(said) + "."


def image_columns(description: Description) -> tuple[str, ...]:
    """The columns of the images: as stated, or else those that modalities name, or ``image``."""
    only_one = ("image",) if len(description.modalities) == 1 else description.modalities
    return description.columns.images or only_one


def _roles(path: Path, header: Sequence[str], description: Description) -> Roles:
    columns = description.columns
    taken = {name.lower() for name in columns.named()}

    def role(stated: str | None, name: str) -> str | None:
        if stated is not None:
            return stated.lower()
        return name if name in header and name not in taken else None

    labels = tuple(column.lower() for column in columns.labels)
    if not description.segments and not labels:
        labels = ("label",)
    roles = Roles(
        case=role(columns.case, "case"),
        patient=role(columns.patient, "patient"),
        site=role(columns.site, "site"),
        split=role(columns.split, "split"),
        images=tuple(column.lower() for column in image_columns(description)),
        mask=role(columns.mask, "mask") if description.segments else None,
        labels=labels,
        attributes=tuple(
            column.lower()
            for column in (*columns.attributes, *(a for a in ATTRIBUTES if a not in taken))
            if column.lower() in header
        ),
        ignored=tuple(column.lower() for column in columns.ignored),
        features=description.features.names if description.features else (),
    )
    known = {*roles.used(), *roles.attributes, *roles.ignored}
    unknown = [column or "one without a name" for column in header if column not in known]
    twice = [column for column in dict.fromkeys(header) if column and header.count(column) > 1]
    if twice:
        raise ConsiliumError(
            f"The table {path} has the columns {', '.join(twice)} more than once (line 1), and "
            "nothing says which is meant. Give each a name of its own, or delete one."
        )
    if unknown:
        raise ConsiliumError(
            f"The table {path} has columns whose meaning nobody has said: {', '.join(unknown)} "
            f"(line 1). Say in {DESCRIPTION} what each means, under `columns:`: as case, patient, "
            "site, split, images, mask or label, or in the lists `attributes` or `ignored`; or "
            "under `features:`."
        )
    return roles
