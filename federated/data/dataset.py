"""A data set in memory: images and labels of three splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from federated.settings.target import Target

TaskName = Literal["classification", "multilabel", "regression", "segmentation"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
DataSource = Literal["medmnist", "files", "phantom"]

# One class of each case, ``(n,)``; and labels of any task, see :class:`Dataset`.
Labels = npt.NDArray[np.int64]
AnyLabels = npt.NDArray[Any]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without its files.

    ``classes`` are the names of what a network predicts: the classes of a case, or those of a voxel
    with the background first; in multi-label classification the labels that a case has or has not;
    in regression the name of the number, which ``target`` describes. ``cases`` gives the number of
    cases of each split. ``shape`` is that of the images of a set of one's own that have labels,
    without channels; ``None`` where the experiment's settings say it.
    """

    name: str
    classes: tuple[str, ...]
    dims: Literal[2, 3]
    channels: int
    cases: Mapping[Split, int]
    licence: str
    task: TaskName = "classification"
    target: Target | None = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class LocatedFile:
    """Where a data set's file or folder lies, what it really is, and its MD5."""

    path: Path
    source: DataSource
    md5: str

    def told_md5(self, private: bool) -> str | None:
        """The MD5 as others may know it; ``None`` for a site's own data in a private run.

        Whoever guesses all records but one could tell by it which one that is. Published files and
        phantoms are known to everybody.
        """
        return None if private and self.source == "files" else self.md5


@dataclass(frozen=True)
class Origin:
    """Where an image in memory comes from, where its data set tells.

    ``record`` is the digest of the case as its files hold it, before it was resized. ``site`` is
    ``None`` where it is not known. ``where`` is the file, by which a person finds it.
    ``attributes`` are names and cells of the columns that tell of the patient.
    """

    name: str
    patient: str
    site: str | None
    where: str
    record: str
    attributes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A data set of labelled images, in memory.

    Images are uint8 ``(n, channels, *spatial)`` in 0..255. Labels are in classification int64
    ``(n,)``; in multi-label classification int64 ``(n, labels)`` of 0 and 1; and in regression
    float64 ``(n,)`` within the range of ``info.target``. ``origins`` tell of each case where the
    images were files of one's own; ``unmatched`` are files of their folder that belong to no case.
    """

    info: DatasetInfo
    images: Mapping[Split, Images]
    labels: Mapping[Split, AnyLabels]
    origins: Mapping[Split, tuple[Origin, ...]] | None = None
    unmatched: tuple[Path, ...] = ()


def to_float(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Map uint8 intensities 0..255 to float32 in [0, 1]."""
    return images.astype(np.float32) / 255.0
