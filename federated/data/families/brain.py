"""Brain tumours in multi-parametric MRI: BraTS, four modalities."""

import csv
from pathlib import Path

from federated.data.families.family import CaseNames, Family, Found, pair

MODALITIES = ("t1n", "t1c", "t2w", "t2f")
PARTITIONING = "partitioning_1.csv"


def find(folder: Path) -> Found:
    """``NAME/NAME-t1n.nii.gz``, ``-t1c``, ``-t2w``, ``-t2f``, and ``NAME/NAME-seg.nii.gz``.

    ``BraTS-GLI-NNNNN-TTT`` is the time point TTT of a patient. Institutions are those of FeTS'
    ``partitioning_1.csv`` where it lies beside the cases. A case that lacks a modality is none, and
    its files are strays, and so is a folder without any.
    """
    institutions = _institutions(folder)
    images, masks, others = {}, {}, []
    cases = (path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    for case in sorted(cases):
        files = {p.name.split(".")[0].removeprefix(f"{case.name}-"): p for p in case.glob("*.nii*")}
        if all(modality in files for modality in MODALITIES):
            images[case.name] = tuple(files[modality] for modality in MODALITIES)
        else:
            others += [path for kind, path in files.items() if kind != "seg"] if files else [case]
        if "seg" in files:
            masks[case.name] = files["seg"]
    return pair(
        images,
        masks,
        lambda name: (_patient(name), institutions.get(name)),
        others,
    )


def _patient(name: str) -> str:
    """``BraTS-GLI-00005`` of ``BraTS-GLI-00005-101``."""
    start, _, last = name.rpartition("-")
    return start if last.isdigit() and len(last) == 3 and start else name


def _institutions(folder: Path) -> dict[str, str]:
    """The institution of each case."""
    path = folder / PARTITIONING
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            row["Subject_ID"]: f"institution-{int(row['Partition_ID']):02d}"
            for row in csv.DictReader(file)
        }


def name_files(number: int) -> CaseNames:
    """Two time points of each patient."""
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
)
