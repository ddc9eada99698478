"""The MedMNIST v2 sets used here: six 3D sets, and three of pictures (Yang et al. 2023).

BloodMNIST has classes, ChestMNIST labels of which a picture may have several, and RetinaMNIST
grades, which MedMNIST calls ordinal regression: here they are a number that is predicted.

Address, MD5, labels, split sizes and licence come from ``medmnist.INFO``. Its own download and its
data set classes are not used, because they need torchvision.
"""

import importlib.util
import sys
import zipfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from federated.data.dataset import (
    SPLITS,
    AnyLabels,
    Dataset,
    DatasetInfo,
    LocatedFile,
    Split,
    TaskName,
)
from federated.data.labelling import LABELLINGS
from federated.data.roots import data_roots
from federated.errors import ConsiliumError, why_unreadable
from federated.files import md5_of, require_writable
from federated.settings.target import Target

DATASETS = (
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
    "bloodmnist",
    "chestmnist",
    "retinamnist",
)
FAMILY = "medmnist"
Size = Literal[28, 64]
# What MedMNIST calls the tasks.
TASK_NAMES: dict[str, TaskName] = {
    "multi-class": "classification",
    "binary-class": "classification",
    "multi-label, binary-class": "multilabel",
    "ordinal-regression": "regression",
}
# The name of the number of sets for regression.
NUMBERS = {"retinamnist": "grade"}
DOWNLOAD_TIMEOUT_S = 20.0
# Why a file could not be downloaded in this process, by where it was to go.
_FAILED: dict[Path, str] = {}


@cache
def _records() -> Any:
    """``medmnist.INFO``, by the module that holds it alone.

    The package itself brings scikit-learn and pandas along, which take half a second.
    """
    package = importlib.util.find_spec("medmnist")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("medmnist_info", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.INFO


def dataset_info(name: str) -> DatasetInfo:
    """What MedMNIST says of a set.

    Raises:
        KeyError: ``name`` is not one of :data:`DATASETS`.
    """
    if name not in DATASETS:
        raise KeyError(name)
    record = _records()[name]
    labels, task = record["label"], TASK_NAMES[str(record["task"])]
    classes = tuple(labels[str(index)] for index in range(len(labels)))
    target = None
    if task == "regression":
        # Grades are numbered by their severity, from 0.
        target = Target(0, len(labels) - 1, whole=True)
        classes = (NUMBERS[name],)
    return DatasetInfo(
        name=name,
        classes=classes,
        dims=3 if name.endswith("3d") else 2,
        channels=int(record["n_channels"]),
        cases={split: int(record["n_samples"][split]) for split in SPLITS},
        licence=str(record["license"]),
        task=task,
        target=target,
    )


def file_name(name: str, size: Size) -> str:
    """The official file name: ``<flag>.npz`` for 28 pixels a side, or ``<flag>_<size>.npz``."""
    return f"{name}.npz" if size == 28 else f"{name}_{size}.npz"


def expected_md5(name: str, size: Size) -> str:
    """The published MD5 of a set's file."""
    return str(_records()[name]["MD5" if size == 28 else f"MD5_{size}"])


def candidate_paths(name: str, size: Size, root: Path) -> list[Path]:
    """The places where a file is looked for: under ``root``, then where CONSILIUM_DATA says."""
    return [folder / FAMILY / file_name(name, size) for folder in data_roots(root)]


def find(name: str, size: Size, root: Path, *, official: bool) -> LocatedFile | None:
    """Find a set's file on this machine; ``None`` if it is not there.

    With ``official`` its MD5 must be the published one and the source is ``medmnist``. Without it
    any file of that name is taken and the source is ``files``.

    Raises:
        ConsiliumError: the file is there, but its MD5 is not the published one.
    """
    for path in candidate_paths(name, size, root):
        if not path.is_file():
            continue
        md5 = md5_of(path)
        if not official:
            return LocatedFile(path, "files", md5)
        if md5 != expected_md5(name, size):
            raise ConsiliumError(
                f"The file {path} is not the published {name}: its MD5 is {md5}, expected "
                f"{expected_md5(name, size)} by medmnist {version('medmnist')}. It is damaged, "
                "truncated or of another release (which another medmnist may know); remove "
                "it to have it downloaded again, or set data.source=files to use your own file."
            )
        return LocatedFile(path, "medmnist", md5)
    return None


def download(name: str, size: Size, root: Path) -> LocatedFile:
    """Download a set's official file into ``root/medmnist`` and check its MD5.

    The file appears under its name only after the check; a line and a progress bar on standard
    error say what is downloaded. Where it failed, this process does not try it again.

    Raises:
        ConsiliumError: there is no network, the MD5 is wrong, or the folder cannot be written to.
    """
    import pooch
    from requests import RequestException

    url = str(_records()[name]["url" if size == 28 else f"url_{size}"])
    folder = root / FAMILY
    target = (folder / file_name(name, size)).resolve()
    if target in _FAILED:
        raise ConsiliumError(_FAILED[target])
    require_writable(folder, "below data.root, for what is downloaded")
    # In its own words pooch says it at each attempt, and also where there is no network.
    pooch.get_logger().setLevel("WARNING")
    print(f"Downloading {name} from {url} into {folder}", file=sys.stderr, flush=True)
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{expected_md5(name, size)}",
            fname=file_name(name, size),
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=DOWNLOAD_TIMEOUT_S),
        )
    except (RequestException, ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        _FAILED[target] = (
            f"{name} is not on this machine and could not be downloaded from {url} ({reason}). "
            f"Put {file_name(name, size)} into {folder}, or name a folder that has "
            f"{FAMILY}/{file_name(name, size)} with CONSILIUM_DATA, or set data.source=phantom to "
            "work on generated images."
        )
        raise ConsiliumError(_FAILED[target]) from error
    return LocatedFile(Path(path), "medmnist", expected_md5(name, size))


def read(path: Path, info: DatasetInfo, size: Size) -> Dataset:
    """Read an npz of MedMNIST's schema and check every array.

    In the schema, ``{train,val,test}_images`` are uint8 ``(n, size, size[, size])``, with a last
    axis for three channels, and ``{train,val,test}_labels`` are integers ``(n, 1)``. For
    multi-label classification they are integers ``(n, labels)`` of 0 and 1, and for regression
    any numbers ``(n, 1)`` within the target's range.

    Raises:
        ConsiliumError: the file is missing, damaged, lacks an array, or an array has another shape,
            type or label than the set's.
    """
    arrays = _read_arrays(path)
    images: dict[Split, npt.NDArray[np.uint8]] = {}
    labels: dict[Split, AnyLabels] = {}
    for split in SPLITS:
        images[split] = _checked_images(path, split, arrays[f"{split}_images"], info, size)
        labels[split] = _checked_labels(
            path, split, arrays[f"{split}_labels"], len(images[split]), info
        )
    return Dataset(info, images, labels)


def _read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    wanted = [f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels")]
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in wanted if name not in file.files]:
                raise ConsiliumError(
                    f"The file {path} lacks {', '.join(missing)}; it has "
                    f"{', '.join(file.files) or 'nothing'}. MedMNIST's schema needs "
                    f"{', '.join(wanted)}."
                )
            return {name: file[name] for name in wanted}
    except FileNotFoundError as error:
        raise ConsiliumError(
            f"The data file {path} is missing. Run `consilium prepare` again, or put it there."
        ) from error
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, AttributeError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as an npz of plain arrays ({why_unreadable(error)}). "
            "If it is damaged or truncated, remove it to have it downloaded again, or put a whole "
            "copy there."
        ) from error


def _checked_images(
    path: Path, split: Split, array: npt.NDArray[Any], info: DatasetInfo, size: Size
) -> npt.NDArray[np.uint8]:
    expected = (size,) * info.dims + ((info.channels,) if info.channels > 1 else ())
    if array.dtype != np.uint8 or array.shape[1:] != expected or not len(array):
        raise ConsiliumError(
            f"In {path}, {split}_images has shape {array.shape} and type {array.dtype}; "
            f"{info.name} at size {size} needs (n, {', '.join(map(str, expected))}) of uint8 with "
            "n at least 1. Check data.dataset and data.size, or replace the file."
        )
    channels_first = np.moveaxis(array, -1, 1) if info.channels > 1 else array[:, np.newaxis]
    return cast(npt.NDArray[np.uint8], channels_first)


def _checked_labels(
    path: Path, split: Split, array: npt.NDArray[Any], cases: int, info: DatasetInfo
) -> AnyLabels:
    try:
        return LABELLINGS[info.task].checked(array, cases, info)
    except ValueError as error:
        raise ConsiliumError(f"In {path}, {split}_labels {error}") from error
