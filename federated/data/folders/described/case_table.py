"""``cases.csv``: a row for each case, with its files, its patient, its site and its split.

Nothing is guessed: an empty cell, a file that is not there, a label that is not known, a case that
is there twice and a patient in two splits are refused, all of a table in one message, each with its
line and column.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from federated.data.dataset import SPLITS, Split
from federated.data.folders.described.cell_path import path_fault, path_of
from federated.data.folders.described.table_roles import (
    CASES,
    DESCRIPTION,
    CaseTable,
    Roles,
    Row,
    read_table,
)
from federated.data.folders.dicom.rules import DicomRules
from federated.data.folders.dicom.series_path import MARK, split_series
from federated.data.folders.families.base import CaseFiles, Listing
from federated.data.folders.families.file_names import left_over, same_text, split_ending
from federated.data.folders.families.side_table import known_number, known_value
from federated.errors import ConsiliumError
from federated.settings.description import Description
from federated.settings.names import refuse_site_name

BESIDE = (CASES, DESCRIPTION)
# How many faults a message names.
NAMED = 8

Target = tuple[int | float, ...]


def find_cases(folder: Path, description: Description) -> Listing:
    """The cases of a folder's ``cases.csv``, in the order of their names.

    Raises:
        ConsiliumError: the table is missing or no table, or something in it is not clear or not
            there; the message names all of it, with lines and columns.
    """
    table = read_table(folder / CASES, description)
    names = case_names(table)
    faults = [*_faults_of_rows(table, names), *_faults_of_patients(table)]
    cases = []
    for row, name in zip(table.rows, names, strict=True):
        found, wrong = _case(folder, table, row, name, description)
        faults += wrong
        if found is not None:
            cases.append(found)
    _refuse(table.path, faults)
    used = [path for case in cases for path in case.paths]
    known = [*used, *_ignored_paths(folder, table)]
    inside = [file for path in known for file in _files(path)]
    unmatched = left_over(folder, [*known, *inside], BESIDE)
    return Listing(tuple(sorted(cases, key=lambda case: case.name)), tuple(sorted(unmatched)))


def case_names(table: CaseTable) -> list[str]:
    """A name for each row: that of its column, or of its first image's file.

    Where files in several folders have one name, their folders are a part of it; and so is which
    of several series in a folder it is.
    """
    if table.roles.case:
        return [same_text(row.cells[table.roles.case]) for row in table.rows]
    paths = [
        split_ending(same_text(row.cells[table.roles.images[0]]).replace("\\", "/").rstrip("/"))[0]
        for row in table.rows
    ]
    paths = [path.replace(MARK, "-") for path in paths]
    short = [path.rpartition("/")[2] for path in paths]
    return short if len(set(short)) == len(set(paths)) else [p.replace("/", "-") for p in paths]


def _faults_of_rows(table: CaseTable, names: Sequence[str]) -> Iterator[str]:
    first: dict[str, int] = {}
    files: dict[str, int] = {}
    image = table.roles.images[0]
    for row, name in zip(table.rows, names, strict=True):
        for column in table.roles.used():
            # A label may well be called `none`; elsewhere such a word says that nothing is known.
            cell = row.cells[column]
            if not cell or (column not in table.roles.labels and not known_value(cell)):
                said = f"says {cell!r:.100}, by which nothing is known" if cell else "is empty"
                yield f"line {row.line}, column {column}: the cell {said}"
        if not name:
            continue
        if row.cells[image] and row.cells[image] in files:
            yield (
                f"line {row.line}, column {image}: {row.cells[image]} is the image of line "
                f"{files[row.cells[image]]} too; a case has one line"
            )
        elif name in first:
            yield (
                f"line {row.line}, column {table.roles.case or image}: the case {name!r:.100} is "
                f"in line {first[name]} already"
            )
        first.setdefault(name, row.line)
        files.setdefault(row.cells[image], row.line)


def _faults_of_patients(table: CaseTable) -> Iterator[str]:
    """Splits that are none, and patients who are in two; lines say who, messages name nobody."""
    column = table.roles.split
    if not column:
        return
    seen: dict[str, tuple[str, int]] = {}
    for row in table.rows:
        split = row.cells[column].lower()
        if split and split not in SPLITS:
            yield (
                f"line {row.line}, column {column}: {row.cells[column]!r:.100} is no split; there "
                f"are {', '.join(SPLITS)}"
            )
        patient = known_value(row.cells[table.roles.patient]) if table.roles.patient else ""
        before = seen.setdefault(patient, (split, row.line)) if patient else None
        if before and before[0] != split:
            yield (
                f"line {row.line}, column {column}: the patient of this line is in {split} and, by "
                f"line {before[1]}, in {before[0]}; what is learned of a patient would be tested "
                "on the same"
            )


def _case(
    folder: Path, table: CaseTable, row: Row, name: str, description: Description
) -> tuple[CaseFiles | None, list[str]]:
    """The case of a row; ``None`` with what is wrong in it."""
    roles, faults = table.roles, []
    paths: dict[str, Path] = {}
    for column in (*roles.images, *([roles.mask] if roles.mask else [])):
        cell = row.cells[column]
        if not cell:
            continue  # told as an empty cell
        said = path_fault(cell)
        path = None if said else path_of(folder, cell)
        if path is None:
            why = said or "is not there"
            faults.append(f"line {row.line}, column {column}: {cell!r:.200} {why}")
        else:
            paths[column] = path
    site = known_value(row.cells[roles.site]) if roles.site else None
    if site:
        try:
            refuse_site_name(site)
        except ConsiliumError as error:
            faults.append(f"line {row.line}, column {roles.site}: {str(error).rstrip('.')}")
    target, wrong = _target(row, roles, description)
    faults += wrong
    features, wrong = _features(row, description)
    faults += wrong
    whole = all(column in paths for column in roles.images) and not faults
    if not whole:
        return None, faults
    split: Split | None = None
    if roles.split:
        split = next((each for each in SPLITS if each == row.cells[roles.split].lower()), None)
    patient = known_value(row.cells[roles.patient]) if roles.patient else name
    return (
        CaseFiles(
            name,
            tuple(paths[column] for column in roles.images),
            paths.get(roles.mask) if roles.mask else None,
            patient or name,
            site,
            patient_known=bool(patient),
            split=split,
            target=target,
            dicom=dicom_rules(description),
            features=features,
            attributes=tuple((name, known_value(row.cells[name])) for name in roles.attributes),
        ),
        faults,
    )


def dicom_rules(description: Description) -> DicomRules:
    """How a set's DICOM files are read; what its description does not say is refused."""
    told = description.dicom
    return DicomRules(
        uneven=told.uneven,
        tilted=told.tilted,
        overlap=told.overlap,
        structures=tuple(told.structures.items()),
    )


def _target(row: Row, roles: Roles, description: Description) -> tuple[Target | None, list[str]]:
    """What is to be learned of a case, from the label's columns; ``None`` in segmentation."""
    if description.segments:
        return None, []
    result: list[int | float] = []
    faults = []
    for column in roles.labels:
        cell = row.cells[column]
        if not cell:
            continue
        value, allowed = _label(cell, description)
        if value is None:
            faults.append(
                f"line {row.line}, column {column}: {cell!r:.100} is no label of the set; {allowed}"
            )
        else:
            result.append(value)
    return tuple(result), faults


def _label(cell: str, description: Description) -> tuple[int | float | None, str]:
    """The value of a label's cell, and what it may be."""
    plain = known_value(cell)
    if (target := description.target) is not None:
        number = known_number(cell)
        kind = "a whole number" if target.whole else "a number"
        expected = f"{kind} from {target.low:g} to {target.high:g} is expected"
        if number is None or not target.low <= number <= target.high:
            return None, expected
        return (None if target.whole and number % 1 else number), expected
    if description.task == "multilabel":
        return {"0": 0, "1": 1}.get(plain), "1 where the finding is there and 0 where not"
    values = {
        str(value): index
        for index, name in enumerate(description.classes)
        for value in description.values(name)
    }
    listed = ", ".join(
        f"{name} ({'|'.join(map(str, description.values(name)))})" for name in description.classes
    )
    return values.get(cell, values.get(plain)), f"there are {listed:.300}"


def _features(row: Row, description: Description) -> tuple[tuple[float, ...], list[str]]:
    """The features and covariates of a case, and what is wrong in their cells."""
    if description.features is None:
        return (), []
    told = (*description.features.columns.items(), *description.features.covariates.items())
    found, faults = [], []
    for name, (low, high) in told:
        cell = row.cells[name.lower()]
        if not known_value(cell):
            continue  # told as an empty cell
        value = known_number(cell)
        if value is not None:
            found.append(value)
        if value is None or not low <= value <= high:
            faults.append(
                f"line {row.line}, column {name}: {cell!r:.100} is no number from {low:g} to "
                f"{high:g}, which features says of it"
            )
    return tuple(found), faults


def _files(path: Path) -> list[Path]:
    """The files of a case that is a folder, as of a DICOM series."""
    place, _ = split_series(path)
    return [file for file in place.rglob("*") if not file.is_dir()] if place.is_dir() else []


def _ignored_paths(folder: Path, table: CaseTable) -> list[Path]:
    """The files that columns name which are left alone, where they name any."""
    cells = [row.cells[column] for row in table.rows for column in table.roles.ignored]
    found = [path_of(folder, cell) for cell in cells if cell and not path_fault(cell)]
    return [path for path in found if path is not None]


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if not faults:
        return
    more = f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
    raise ConsiliumError(
        f"The table {path} cannot be used: {'; '.join(faults[:NAMED])}{more}. Mend these lines, "
        f"or what {DESCRIPTION} says of them."
    )
