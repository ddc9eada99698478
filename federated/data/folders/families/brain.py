"""Brain tumours in multi-parametric MRI: BraTS, four modalities."""

import re
from pathlib import Path

from federated.data.folders.families.base import CaseNames, Family, Listing, Source, pair
from federated.data.folders.families.file_names import VOLUMES, entries, named, same_text
from federated.data.folders.families.side_table import read_side_table, whole_number

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
PARTITIONING = "partitioning_1.csv"
# What may lie beside the cases: FeTS' partitionings and the challenge's own tables.
BESIDE = ("*.csv", "*.xlsx", "*.json")
# Enhancing tumour and resection cavity; until 2022 the first had the second's value.
ENHANCING, CAVITY = 3, 4
# Time points of the release of 2024, whose masks have resection cavities, begin at 100.
AFTER_TREATMENT = re.compile(r"BraTS-GLI-\d{5}-[1-9]\d{2}")


def find(folder: Path) -> Listing:
    """The cases of a folder: ``NAME/NAME-t1n.nii.gz``, ``-t1c``, ``-t2w``, ``-t2f`` and ``-seg``.

    ``BraTS-GLI-NNNNN-TTT`` is the time point TTT of a patient. Institutions are those of FeTS'
    ``partitioning_1.csv`` where it lies beside the cases. A case that lacks a modality does not
    count as one, and its files are unmatched; so is a folder without any file.

    Raises:
        ConsiliumError: as :func:`pair`, or the table of institutions cannot be used.
    """
    images: dict[str, dict[str, list[Path]]] = {modality: {} for modality in MODALITIES}
    masks: dict[str, list[Path]] = {}
    names = []
    for case in entries(folder):
        if case.is_dir():
            name = same_text(case.name)
            names.append(name)
            files = named(entries(case), VOLUMES, start=f"{name}-")
            for kind, found in (*images.items(), ("seg", masks)):
                if kind in files:
                    found.setdefault(name, []).extend(files[kind])
    institutions = _institutions(folder, names)
    return pair(
        folder,
        list(images.values()),
        masks,
        lambda name: Source(_patient(name), institutions.get(name)),
        BESIDE,
    )


def _patient(name: str) -> str:
    """The patient's part of a case's name, ``BraTS-GLI-00005`` of ``BraTS-GLI-00005-101``."""
    start, _, last = name.rpartition("-")
    return start if last.isdigit() and len(last) == 3 and start else name


def _institutions(folder: Path, names: list[str]) -> dict[str, str]:
    """The institution of each case for which the table has one."""
    path = folder / PARTITIONING
    if not path.is_file():
        return {}
    column = "Partition_ID"
    table = read_side_table(path, names, key="Subject_ID", needed=(column,))
    return {
        name: f"institution-{whole_number(row[column], path, column, name):02d}"
        for name, row in table.items()
        if row[column]
    }


def _other_labels(name: str, values: frozenset[int]) -> str:
    """What speaks for masks as they were until 2022: 0, 1, 2 and 4, which was enhancing tumour.

    Resection cavities without enhancing tumour have the same values, but come with the time points
    of the release of 2024 alone.
    """
    if CAVITY not in values or ENHANCING in values or AFTER_TREATMENT.fullmatch(name):
        return ""
    return (
        "has the label 4 and no 3, as masks of BraTS had until 2022, when 4 was enhancing tumour; "
        "since then 3 is, and 4 a resection cavity"
    )


def name_files(number: int) -> CaseNames:
    """The files of a case, where each patient has two time points."""
    name = f"BraTS-GLI-{number // 2:05d}-{100 + number % 2}"
    images = tuple(f"{name}/{name}-{modality}.nii.gz" for modality in MODALITIES)
    return CaseNames(images, f"{name}/{name}-seg.nii.gz")


BRAIN = Family(
    name="brain",
    dims=3,
    modalities=MODALITIES,
    channels=4,
    labels=("background", "NETC", "SNFH", "ET", "RC"),
    label_values={},
    spacing=(1.0, 1.0, 1.0),
    shape=(96, 96, 96),
    whole=False,
    window=None,
    mirrored=(0,),
    licence="as granted by the BraTS challenge, for research",
    source="de Verdier et al. 2024, The 2024 BraTS Challenge: glioma post-treatment",
    layout="BraTS-GLI-NNNNN-TTT/BraTS-GLI-NNNNN-TTT-{t1n,t1c,t2w,t2f,seg}.nii.gz, "
    "partitioning_1.csv if at hand",
    find=find,
    name_files=name_files,
    other_labels=_other_labels,
)
