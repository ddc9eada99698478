"""A segmentation data set: the cases of a folder, split by patient."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from federated.data.dataset import SPLITS, DatasetInfo, LocatedFile, Split
from federated.data.folders.families import FAMILIES, CaseFiles, Family, Listing
from federated.data.folders.families.file_names import walk
from federated.data.roots import data_roots
from federated.errors import ConsiliumError
from federated.files import locked, md5_of, require_writable, sha256_of
from federated.randomness import numpy_generator

# The shares of the patients of each natural site; the rest is for training. The split is the same
# for all seeds.
SHARES: Mapping[Split, float] = {"val": 0.1, "test": 0.2}
SPLIT_SEED = 0
PHANTOM_CASES = 24
# Of fewer cases with a finding the shares could not be kept.
FEW = 5
# How many files a message names.
NAMED = 5


@dataclass(frozen=True)
class FolderDataset:
    """The cases of each split, in the order of their names, and files that belong to no case."""

    family: Family
    info: DatasetInfo
    cases: Mapping[Split, tuple[CaseFiles, ...]]
    unmatched: tuple[Path, ...]


def candidate_folders(name: str, root: Path) -> list[Path]:
    """The folders where a family is looked for: under ``root``, then where CONSILIUM_DATA says."""
    return [folder / name for folder in data_roots(root)]


def find_folder(name: str, root: Path) -> LocatedFile | None:
    """A family's folder on this machine, with the MD5 of all its files and their names.

    It is ``None`` where there is no such folder.
    """
    for folder in candidate_folders(name, root):
        if folder.is_dir():
            return LocatedFile(folder, "files", folder_md5(folder))
    return None


def folder_md5(folder: Path) -> str:
    """One MD5 over the relative paths and the contents of all files, in the order of paths.

    Links are followed: a folder that is put together from links is the data that they lead to.
    Hidden files are not data: what a file browser leaves behind does not change the MD5. It names
    the data, as MD5 does everywhere in DVC, and is no protection against whoever makes two
    folders that have the same one; :func:`data_sha256` is.
    """
    digest = hashlib.md5(usedforsecurity=False)
    for path in _files_of(folder):
        digest.update(f"{path.relative_to(folder)}\0{md5_of(path)}\n".encode())
    return digest.hexdigest()


def data_sha256(place: Path) -> str:
    """The SHA-256, in hexadecimal digits, of a data set's file, or of its folder.

    That of a folder is taken as :func:`folder_md5` takes its own.

    Raises:
        OSError: a file cannot be read.
    """
    if not place.is_dir():
        return sha256_of(place)
    digest = hashlib.sha256()
    for path in _files_of(place):
        digest.update(f"{path.relative_to(place)}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _files_of(folder: Path) -> list[Path]:
    paths = (path for _, _, files in walk(folder) for path in files)
    return sorted(path for path in paths if path.is_file())


def materialise(family: Family, seed: int, root: Path) -> LocatedFile:
    """A generated folder of the family's form, which is made once.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    # Importing what writes NIfTI files takes a while.
    from federated.data.folders.phantom import write_phantom

    folder = root / "phantom" / f"{family.name}-{seed}"
    require_writable(folder.parent, "below data.root, for generated images")
    with locked(folder.parent / f".{folder.name}.lock"):
        if not folder.is_dir():
            part = folder.parent / f".{folder.name}.part"
            write_phantom(family, part, PHANTOM_CASES, seed)
            part.rename(folder)
    return LocatedFile(folder, "phantom", folder_md5(folder))


def read_folder(folder: Path, name: str, spacing: float | None = None) -> FolderDataset:
    """List the folder of a known family and split its patients; no image is read.

    Args:
        folder: where the files are.
        name: the family's.
        spacing: sides in mm of the voxels that volumes are resampled to, if not the family's own.

    Raises:
        ConsiliumError: there is no case, or there are too few patients for three splits.
    """
    return read_family(folder, FAMILIES[name].with_spacing(spacing))


def read_family(folder: Path, family: Family) -> FolderDataset:
    """List a folder of a family, known or described, and split its patients; no image is read.

    Raises:
        ConsiliumError: there is no case, or there are too few patients for three splits.
    """
    listing = found_cases(folder, family)
    cases = split_cases(folder, family.name, listing.cases)
    info = folder_info(family, {split: len(cases[split]) for split in SPLITS})
    return FolderDataset(family, info, cases, listing.unmatched)


def found_cases(folder: Path, family: Family) -> Listing:
    """The files of a family's folder.

    Raises:
        ConsiliumError: there is no case.
    """
    listing = family.find(folder)
    if not listing.cases:
        there = ", ".join(str(path.relative_to(folder)) for path in listing.unmatched[:NAMED])
        raise ConsiliumError(
            f"The folder {folder} holds no image of the data set {family.name}. It is expected to "
            f"hold {family.layout}" + (f"; it holds {there}." if there else ".")
        )
    return listing


def split_cases(
    folder: Path, name: str, cases: Sequence[CaseFiles]
) -> dict[Split, tuple[CaseFiles, ...]]:
    """The cases of each split: those that the data set says, or else drawn by patient.

    Raises:
        ConsiliumError: a split would have no case.
    """
    stated = any(case.split for case in cases)
    dealt: dict[Split, tuple[CaseFiles, ...]] = (
        {split: tuple(case for case in cases if case.split == split) for split in SPLITS}
        if stated
        else split_patients(cases)
    )
    if empty := [split for split in SPLITS if not dealt[split]]:
        if stated:
            raise ConsiliumError(
                f"The table of {folder} puts no case into {' and '.join(empty)}. Each of "
                f"{', '.join(SPLITS)} needs some; or leave the column out, to have patients dealt."
            )
        raise ConsiliumError(
            f"The folder {folder} holds {len(cases)} cases of {name}, too few patients to "
            "split into training, validation and test. At least three of one site, or class, are "
            "needed, best many more."
        )
    return dealt


def folder_info(family: Family, cases: Mapping[Split, int]) -> DatasetInfo:
    """What is known of a family's images; ``cases`` is how many each split has."""
    return DatasetInfo(
        name=family.name,
        classes=family.labels,
        dims=family.dims,
        channels=family.channels,
        cases=cases,
        licence=family.licence,
        task="segmentation",
    )


def split_patients(cases: Sequence[CaseFiles]) -> dict[Split, tuple[CaseFiles, ...]]:
    """Deal patients to splits, site by site where the data have sites; a patient is in one split.

    Where images have classes, those of each class are dealt by themselves, so that splits have them
    in about the same shares. Each split gets at least one patient of a site, or of its class, that
    has three.
    """
    strata: dict[str, dict[str, None]] = {}
    owner: dict[str, Split] = {}
    placed: set[str] = set()
    for case, stratum in zip(cases, _strata(cases), strict=True):
        # A patient with images of two classes counts with the first.
        if case.target is None or case.patient not in placed:
            strata.setdefault(stratum, {})[case.patient] = None
            placed.add(case.patient)
    for stratum, names in strata.items():
        rng = numpy_generator(SPLIT_SEED, purpose="split of patients", site=stratum)
        shuffled = [str(name) for name in rng.permutation(sorted(names))]
        counts = {split: max(1, round(share * len(names))) for split, share in SHARES.items()}
        if len(names) < len(SPLITS):
            counts = dict.fromkeys(SHARES, 0)
        for split, count in counts.items():
            owner |= dict.fromkeys(shuffled[:count], split)
            shuffled = shuffled[count:]
        owner |= dict.fromkeys(shuffled, "train")
    return {
        split: tuple(case for case in cases if owner[case.patient] == split) for split in SPLITS
    }


def _strata(cases: Sequence[CaseFiles]) -> list[str]:
    """What patients are dealt by: the site, and the class of an image, or its rarest finding.

    Findings of few cases are dealt with those of a site that have none. Numbers of a regression are
    no classes.
    """
    several = [case.target for case in cases if case.target and len(case.target) > 1]
    rarest = np.argsort(np.sum(several, axis=0), kind="stable").tolist() if several else ()
    found = [_stratum(case, rarest) for case in cases]
    count = Counter(found)
    if not several:
        return found
    return [
        stratum if count[stratum] >= FEW else case.site or ""
        for case, stratum in zip(cases, found, strict=True)
    ]


def _stratum(case: CaseFiles, rarest: Sequence[int]) -> str:
    site, target = case.site or "", case.target
    if target is None or not all(isinstance(value, int) for value in target):
        return site
    if len(target) == 1:
        return f"{site}, class {target}"
    finding = next((place for place in rarest if target[place]), None)
    return site if finding is None else f"{site}, finding {finding}"
