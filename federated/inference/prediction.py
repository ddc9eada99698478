"""What a trained model predicts of files: masks in segmentation, a table otherwise."""

import csv
import hashlib
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from federated.data.folders.described.class_image import class_image
from federated.data.folders.dicom.algorithm import Algorithm
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.families import Family
from federated.data.folders.nifti_file import is_nifti
from federated.data.folders.prepared_case import PreparedCase, prepare_volumes
from federated.data.folders.read_volume import Volume, is_dicom, read_volume
from federated.data.medmnist.array_file import is_npz, read_arrays
from federated.errors import ConsiliumError
from federated.files import atomic_path, sha256_of, write_json
from federated.inference.mask_file import map_path, mask_names, write_map, write_mask
from federated.inference.model_input import (
    calibrated,
    case_of_array,
    class_images,
    full_range,
    predicted_images,
    segmented,
    uncertain,
)
from federated.learning import TASKS
from federated.weights.model_file import ModelHeader, load_model, personal_sites, read_header

# The digits of its digest that stand for the version of a model that has none.
DIGITS = 12


def predict_files(
    model_path: Path,
    files: Sequence[Path],
    out: Path,
    site: str | None = None,
    algorithm: Algorithm | None = None,
    dicom: DicomRules = STRICT,
    uncertainty: bool = False,
) -> list[Path]:
    """Predict each file and write what was found into ``out``.

    In segmentation each file gives a mask of its own name and grid. The mask of a NIfTI file has
    the codes, the unit and the affine of its image's header. The mask of a picture is PNG, with the
    grey values of the data set's masks; a photograph with an EXIF orientation is predicted upright,
    and its mask is stored as the photograph is, as TIFF with the same tag. A ``.npz`` file has an
    array ``image`` ``(channels, *spatial)``, and may have its ``affine``; without one a volume's
    voxels are of 1 mm in RAS order. A file larger than the network's field is predicted by a window
    that slides over all of it. A DICOM series, in a folder, gives a DICOM-SEG that refers to its
    slices, and a NIfTI file, or for a projection PNG. Where a case has several modalities, it is a
    folder with a NIfTI file ``…-MODALITY.nii.gz``, or a folder ``…-MODALITY`` of a DICOM series,
    for each.

    In classification all files together give ``probabilities.csv``, with a row for each image and
    a column for each class or label; in regression ``numbers.csv``, with the number. A JSON file of
    the same name says which model, temperature and threshold that table was made with. A ``.npz``
    file holds arrays whose names end in ``images``, as MedMNIST's. Images of a set of one's own may
    have any size: they are prepared as for training. Of a model with a temperature the
    probabilities are those at it; of one with prediction sets there is a column ``set`` with the
    classes in the set, which may be none, separated by ``|``.

    With ``uncertainty`` there is beside each mask the variance of probabilities over flips of the
    image, see :mod:`federated.learning.flip_variance`: ``NAME_uncertainty.nii.gz`` in float32 on
    the mask's grid, of a picture TIFF, of an array ``.npz``.

    Args:
        model_path: the model's file.
        files: the files, or folders for cases of several modalities.
        out: the folder for the results.
        site: whose model it is, where sites have their own, and whose threshold of sets it takes.
        algorithm: the name and version of the model in the registry, which a DICOM-SEG names; by
            default the model file's name and the start of its SHA-256.
        dicom: how DICOM series are read.
        uncertainty: whether a map of the uncertainty is written beside each mask.

    Returns:
        The files that were written.

    Raises:
        ConsiliumError: a file cannot be read or does not fit the model, or a result would replace
            its input or another result. In segmentation the masks of all other files are written,
            and all that cannot be read are named; of a table nothing is written.
    """
    header = read_header(model_path)
    if header.calibration is not None:
        header.calibration.least(site)  # who has no sets is refused before anything is predicted
    model = load_model(model_path, site)
    by = algorithm or _unregistered(model_path)
    family = header.family()
    if family is None:
        if uncertainty:
            raise ConsiliumError(
                f"--uncertainty is a map beside a mask, and {model_path} is for {header.goal()}. "
                "Leave it out; a classifier's uncertainty is in its probabilities."
            )
        table = _tabulate(model, header, files, out, dicom, site)
        return [table, _say_how(table, model_path, by, site)]
    targets = _targets(files, family, out)
    maps = [map_path(own[-1]) for own in targets] if uncertainty else []
    _refuse_collisions(files, [[*own, *maps[at : at + 1]] for at, own in enumerate(targets)])
    refused: dict[Path, ConsiliumError] = {}
    written: list[Path] = []
    for at, (path, own) in enumerate(zip(files, targets, strict=True)):
        try:
            case, image = case_of_file(family, path, dicom)
            mask = case.to_own_grid(segmented(model, family, case))
            variance = None
            if uncertainty:
                variance = case.probabilities_on_own_grid(uncertain(model, family, case)[None])[0]
            written += write_mask(family, mask, image, own, by)
            if variance is not None:
                written.append(write_map(variance, image, maps[at]))
        except ConsiliumError as error:
            if len(files) == 1:
                raise
            refused[path] = error
    if refused:
        others = f"; those of the others are in {out}" if len(refused) < len(files) else ""
        listed = " ".join(dict.fromkeys(map(str, refused.values())))
        raise ConsiliumError(f"{len(refused)} of {len(files)} files have no mask{others}. {listed}")
    return written


def results_there(header: ModelHeader, files: Sequence[Path], out: Path) -> list[Path]:
    """The files that :func:`predict_files` would replace: masks, or the table.

    Args:
        header: the model's.
        files: those that are predicted.
        out: the folder for the results.

    Raises:
        ConsiliumError: a file is of no kind that can be predicted.
    """
    family = header.family()
    if family is None:
        results = [out / str(TASKS[header.goal()].results)]
    else:
        results = list(chain.from_iterable(_targets(files, family, out)))
    return [path for path in results if path.is_file()]


def _targets(files: Sequence[Path], family: Family, out: Path) -> list[list[Path]]:
    """For each file the files that its mask becomes."""
    return [[out / name for name in mask_names(path, family)] for path in files]


def _unregistered(model_path: Path) -> Algorithm:
    with model_path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Algorithm(model_path.stem, digest[:DIGITS])


def _refuse_collisions(files: Sequence[Path], targets: Sequence[Sequence[Path]]) -> None:
    inputs = {Path(os.path.realpath(path)) for path in files}
    folders = [path for path in inputs if path.is_dir()]
    seen: dict[Path, Path] = {}
    pairs = [(path, target) for path, own in zip(files, targets, strict=True) for target in own]
    for path, target in pairs:
        if target.is_dir():
            raise ConsiliumError(
                f"The mask of {path} would be {target}, which is a folder. Name another one with "
                "--out."
            )
        if Path(os.path.realpath(target)) in inputs:
            raise ConsiliumError(
                f"The mask of {path} would replace an input, {target}. Name another folder with "
                "--out."
            )
        beside = Path(os.path.realpath(target.parent))
        if target.exists() and any(beside.is_relative_to(folder) for folder in folders):
            raise ConsiliumError(
                f"The mask of {path} would replace {target}, which lies in a folder that is "
                "predicted. Name another folder with --out."
            )
        if target in seen:
            raise ConsiliumError(
                f"The masks of {seen[target]} and {path} would both be {target}. Predict them one "
                "after the other, into different folders."
            )
        seen[target] = path


def case_of_file(
    family: Family, path: Path, dicom: DicomRules = STRICT
) -> tuple[PreparedCase, Volume | None]:
    """A case that is prepared, and the image that its mask lies on; ``None`` for an array.

    Args:
        family: the data set's.
        path: a file, or a folder of a DICOM series or of a case of several modalities.
        dicom: how DICOM series are read.

    Raises:
        ConsiliumError: it cannot be read or does not fit the family.
    """
    if is_npz(path):
        arrays = read_arrays(path, ("image", "affine").__contains__)
        if "image" not in arrays:
            raise ConsiliumError(f"The file {path} has no array `image`, but an `affine`.")
        affine = arrays.get("affine", np.eye(4))
        if affine.dtype.kind not in "uif":
            raise ConsiliumError(
                f"The array `affine` of the file {path} is of the type {affine.dtype}; 4x4 real "
                "numbers are expected. Save it so, or leave it out."
            )
        affine = np.asarray(affine, np.float64)
        flat = family.dims == 2
        return case_of_array(family, arrays["image"], str(path), None if flat else affine), None
    volumes = _volumes(family, path, dicom)
    return prepare_volumes(family, str(path), volumes), volumes[0]


def _volumes(family: Family, path: Path, dicom: DicomRules) -> list[Volume]:
    if len(family.modalities) == 1:
        return [read_volume(path, dicom)]
    found = [_modality(path, modality) for modality in family.modalities]
    if not path.is_dir() or not all(found):
        raise ConsiliumError(
            f"A case of {family.name} has the modalities {', '.join(family.modalities)}, and "
            f"{path} is no folder with a NIfTI file for each, named like "
            f"NAME-{family.modalities[0]}.nii.gz, or the folder of a DICOM series, "
            f"NAME-{family.modalities[0]}."
        )
    twice = next((files for files in found if len(files) > 1), None)
    if twice:
        raise ConsiliumError(
            f"The folder {path} has more than one file of a modality: "
            f"{', '.join(file.name for file in twice)}. Leave one of them there."
        )
    return [read_volume(files[0], dicom) for files in found]


def _modality(folder: Path, modality: str) -> list[Path]:
    """The files or folders of a modality; one whose name begins with a dot is not data."""
    files = [path for path in folder.glob(f"*-{modality}.*") if is_nifti(path)]
    series = [path for path in folder.glob(f"*-{modality}") if path.is_dir() and is_dicom(path)]
    return sorted(path for path in (*files, *series) if not path.name.startswith("."))


def _tabulate(
    model: nn.Module,
    header: ModelHeader,
    files: Sequence[Path],
    out: Path,
    dicom: DicomRules,
    site: str | None,
) -> Path:
    """Write what is predicted of all images of all files into one table.

    Args:
        model: the network.
        header: what its file says of it.
        files: the files.
        out: the folder of the table.
        dicom: how DICOM series are read.
        site: whose threshold of prediction sets is taken, where the model has any.
    """
    target = out / str(TASKS[header.goal()].results)
    names = header.class_names()
    rows: list[list[Any]] = []
    for path in files:
        for name, images in _images(path, header, dicom):
            found = predicted_images(model, images, header)
            sets = _sets(found, header, site)
            rows += [
                [path.name, name, i, *map(float, p), *own]
                for i, (p, own) in enumerate(zip(calibrated(found, header), sets, strict=True))
            ]
    has_sets = header.calibration is not None and header.calibration.threshold is not None
    with atomic_path(target) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "array", "index", *names, *(["set"] if has_sets else [])])
        writer.writerows(rows)
    return target


def _say_how(table: Path, model_path: Path, by: Algorithm, site: str | None) -> Path:
    """Write beside a table how it was made, and return that file.

    Args:
        table: what was predicted.
        model_path: the model's file.
        by: the model's name and version.
        site: that was asked for.
    """
    header = read_header(model_path)
    calibration, classifies = header.calibration, header.goal() == "classification"
    temperature = calibration.temperature if calibration else 1.0
    told: dict[str, Any] = {
        "table": table.name,
        "sha256": sha256_of(table),
        "model": by.name,
        "version": by.version,
        "dataset": header.dataset,
        "data_source": header.data_source,
        "columns": list(header.class_names()),
        # Whose own model it is; a model that is one for all sites is nobody's.
        "site": site if personal_sites(model_path) else None,
        "temperature": temperature if classifies else None,
        "sets": None,
    }
    if calibration and (found := calibration.least(site)):
        least, whose = found
        whose = whose or "all sites together"
        told["sets"] = {"alpha": calibration.alpha, "threshold": least, "threshold_of": whose}
    path = table.with_suffix(".json")
    write_json(path, told)
    return path


def _sets(found: npt.NDArray[np.float64], header: ModelHeader, site: str | None) -> list[list[str]]:
    """A cell with the classes in each image's prediction set; no cell where there are no sets."""
    sets = None if header.calibration is None else header.calibration.sets(found, site)
    if sets is None:
        return [[] for _ in found]
    names = header.class_names()
    return [
        ["|".join(name for name, there in zip(names, own, strict=True) if there)] for own in sets
    ]


def _with_channel(images: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Grey images with an axis of channels; a single number becomes one that fits no shape."""
    return images[:, np.newaxis] if images.ndim else images[np.newaxis]


def _images(
    path: Path, header: ModelHeader, dicom: DicomRules
) -> list[tuple[str, npt.NDArray[Any]]]:
    """Batches ``(n, channels, *spatial)`` of a file, with the name of the array each is from."""
    if is_npz(path):
        arrays = read_arrays(path, lambda name: name.endswith("images"))
        channels_last = header.channels > 1
        return [
            (
                name,
                class_images(
                    np.moveaxis(a, -1, 1) if channels_last and a.ndim > 1 else _with_channel(a),
                    header,
                    f"{name} of {path}",
                ),
            )
            for name, a in arrays.items()
        ]
    if (family := header.class_family()) is not None:
        return [("", class_image(family, str(path), _volumes(family, path, dicom))[np.newaxis])]
    mask_names(path)  # refuses what is of no kind that can be read
    values = full_range(read_volume(path, dicom).values, str(path))
    if header.channels == 1 and len(values) == 3 and header.dims == 2:
        if (values != values[:1]).any():
            raise ConsiliumError(
                f"The picture {path} is coloured; the model takes grey ones, as {header.dataset} "
                "has. Save it grey."
            )
        values = values[:1]
    return [("", class_images(values[np.newaxis], header, str(path)))]
