"""The cases of one site as a described set of its own: their files, and their lines of the table.

For a consortium that is tried out on one machine, where each site has a folder as a hospital has.
"""

import csv
import shutil
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from federated.data.dataset import Split
from federated.data.folders.described.case_table import case_names
from federated.data.folders.described.table_roles import CASES, DESCRIPTION, read_table
from federated.data.folders.dicom.series import series_files
from federated.data.folders.dicom.series_path import split_series
from federated.data.folders.families.base import CaseFiles
from federated.settings.description import Description

SPLIT = "split"


def deal_cases(
    folder: Path,
    description: Description,
    cases: Mapping[Split, Sequence[CaseFiles]],
    site: str,
    target: Path,
) -> None:
    """Copy some cases of a folder with a ``cases.csv``, with their lines and the description.

    The table that is written says which split each case is in, unless another column of it is
    called so; where the whole one names sites, it names the one that has the cases now. Files of
    columns that are ignored are left behind.

    Args:
        folder: of the whole set.
        description: what the set is.
        cases: those that are copied, of the folder's, by the split of each.
        site: whose they are from now on.
        target: the folder that is made.

    Raises:
        ConsiliumError: the folder is not what the description says, or a series of a folder with
            several is named by its place among them.
        OSError: a file cannot be read or written.
    """
    table = read_table(folder / CASES, description)
    column = table.roles.split or SPLIT
    header = list(table.rows[0].cells)
    if column not in header:
        header.append(column)
    elif table.roles.split is None:
        column = ""
    stated = {table.roles.site: site} if table.roles.site else {}
    target.mkdir(parents=True)
    splits = {case.name: split for split, own in cases.items() for case in own}
    paths = [path for case in chain.from_iterable(cases.values()) for path in case.paths]
    # Several cases may share a file or a folder.
    for place, series in dict.fromkeys(map(split_series, paths)):
        _copy(place, series, target / place.relative_to(folder))
    with (target / CASES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for row, name in zip(table.rows, case_names(table), strict=True):
            if name in splits:
                split = {column: splits[name]} if column else {}
                writer.writerow({**row.cells, **stated, **split})
    # Of a set that Consilium knows by its name there is none beside the table.
    if (folder / DESCRIPTION).is_file():
        shutil.copyfile(folder / DESCRIPTION, target / DESCRIPTION)


def _copy(path: Path, series: str | None, target: Path) -> None:
    """Copy an image's file, or the folder of its series, or one series of a folder that has more.

    Of the latter the other series may be those of other patients, who are at another site.
    """
    # A part of a folder may be there, as the mask of another case.
    if series is None and path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
        return
    files = {path: target}
    if series is not None:
        files = {file: target / file.relative_to(path) for file in series_files(path, series)}
    for file, copy in files.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
