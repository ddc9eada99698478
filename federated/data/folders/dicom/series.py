"""A series of DICOM images as the project's volume, or a single projection as its picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.arrangement import arranged
from federated.data.folders.dicom.frames import MOST_VOXELS, Frame
from federated.data.folders.dicom.objects import is_dicom, objects_in
from federated.data.folders.dicom.pixels import (
    is_padding,
    meant_values,
    refuse_mixed,
    stored_values,
)
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.rules import STRICT, DicomRules
from federated.data.folders.dicom.source import SourceSeries
from federated.data.folders.dicom.stacks import BY_PLACE, Stack, is_image, one_stack
from federated.data.folders.families.file_names import entries
from federated.data.folders.volume import Volume, check_numbers
from federated.errors import ConsiliumError

Array = npt.NDArray[Any]
# Objects that lie in the patient: without a position nothing can be said of them.
PLACED = ("CT", "MR", "PT")


@quiet()
def read_series(path: Path, rules: DicomRules = STRICT) -> Volume:
    """Read the one series of images in a folder, or in a file.

    A volume is ``(1, columns, rows, slices)`` with slices in the order of their positions, and its
    affine maps these to mm towards right, anterior and superior, as NIfTI's does. Its values are
    scaled slice by slice; they are float32, or float64 where float32 would lose digits. What is no
    image (PixelPaddingValue) has the lowest value of the image. An image without a place in the
    patient, as of projection X-ray, is a picture ``(1 or 3, height, width)`` with black as its
    lowest value. ``frame`` of the result is the :class:`SourceSeries`, for masks.

    Raises:
        ConsiliumError: there is no image, or more than one volume and ``rules.series`` names none;
            a file is damaged or cannot be decoded; slices are doubled, or differ in unit; or they
            make no regular volume and the rules do not let them be resampled.
    """
    stack = one_stack(str(path), objects_in(path), rules.series)
    _refuse_one_of_many(path, stack)
    name = str(path)
    if stack.frames[0].place is None:
        return _picture(name, stack.series, stack.frames)
    first = stack.frames[0]
    if first.rows * first.columns * len(stack.frames) > MOST_VOXELS:
        raise ConsiliumError(
            f"{name} has {len(stack.frames)} slices of {first.columns}x{first.rows} pixels; up to "
            f"{MOST_VOXELS} voxels in all can be read. Crop it."
        )
    frames, affine, regrid = arranged(name, stack.frames, rules)
    refuse_mixed(name, frames)
    values = _values(name, frames)
    if regrid is not None:
        values = regrid.forward(values, float(values.min()))
    source = SourceSeries(name, stack.series, frames, regrid)
    return Volume(values[np.newaxis], affine, name, source)


@quiet()
def series_files(folder: Path, series: str) -> list[Path]:
    """The files of the images of a series in a folder, with all stacks that it has.

    Args:
        folder: with the series, among others.
        series: the name that ``FOLDER#SERIES`` has for it, or for a stack of it.

    Raises:
        ConsiliumError: no series has that name, or more than one; a file cannot be read; or the
            name is a place among the others (``@2``), which it would not have without them.
    """
    objects = objects_in(folder)
    wanted = one_stack(str(folder), objects, series)
    if series.startswith(BY_PLACE):
        raise ConsiliumError(
            f"Series {series} of {folder} is named by its place among the series of that folder, "
            "and without the others it would have another one. Name it in cases.csv by its "
            "SeriesInstanceUID, or move it to a folder of its own."
        )
    same = [found for found in objects if found.text("SeriesInstanceUID") == wanted.series]
    return list(dict.fromkeys(found.path for found in same if is_image(found)))


def _refuse_one_of_many(path: Path, stack: Stack) -> None:
    """Refuse a single slice by the name of its file where others of its series lie beside it.

    Raises:
        ConsiliumError: there are others.
    """
    (first, *others) = stack.frames
    if path.is_dir() or others or first.place is None:
        return
    for file in entries(path.parent):
        if file.name == path.name or file.is_dir() or not is_dicom(file):
            continue
        try:
            beside = objects_in(file)
        except ConsiliumError:
            continue  # it is not asked for
        if any(
            is_image(found) and found.text("SeriesInstanceUID") == stack.series for found in beside
        ):
            raise ConsiliumError(
                f"The file {path} is one slice of a series, whose others lie beside it. Name the "
                f"folder {path.parent}."
            )


def _values(name: str, frames: Sequence[Frame]) -> Array:
    """The values of frames ``(columns, rows, frames)``, with padding as the lowest of the rest."""
    slices: list[Array] = []
    padding: list[npt.NDArray[np.bool_]] = []
    decoded: dict[int, Array] = {}
    left = [id(frame.found) for frame in frames]
    for frame in frames:
        key = id(frame.found)
        if key not in decoded:
            decoded[key] = stored_values(frame.found)
        stored = decoded[key][frame.index]
        left.remove(key)
        if key not in left:
            del decoded[key]
        if stored.ndim != 2:
            raise ConsiliumError(
                f"The image {frame.name} of {name} is coloured; a volume has one value a voxel. It "
                "may be a picture of the volume: name the series that it was made from."
            )
        slices.append(_narrow(meant_values(frame, stored)).T)
        padding.append(is_padding(frame, stored).T)
    values, outside = np.stack(slices, axis=-1), np.stack(padding, axis=-1)
    if outside.any() and not outside.all():
        values[outside] = values[~outside].min()
    return values


def _narrow(values: Array) -> Array:
    """Values as float32, or as float64 where float32 would lose digits."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = values.astype(np.float32)
    return narrow if np.array_equal(narrow, values) else values.astype(np.float64)


def _picture(name: str, series: str, frames: Sequence[Frame]) -> Volume:
    (frame, *others) = frames
    modality = frame.found.text("Modality")
    if others:
        raise ConsiliumError(
            f"The file {frame.found.name} of {name} holds {len(frames)} frames that have no place "
            "in the patient, as a film does. Save the frame that is meant as a file of its own, or "
            "the volume as an object whose frames have positions."
        )
    if modality in PLACED:
        raise ConsiliumError(
            f"The {modality} image {frame.name} of {name} does not say where it lies "
            "(ImagePositionPatient and ImageOrientationPatient). It may be a screenshot or a "
            "report; take the series from where it was made."
        )
    stored = stored_values(frame.found)[0]
    values = meant_values(frame, stored)
    check_numbers(values[np.newaxis], name)
    channels = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[np.newaxis]
    outside = is_padding(frame, stored)
    if values.ndim == 2 and outside.any() and not outside.all():
        channels = np.where(outside, channels[:, ~outside].min(), channels)
    return Volume(np.ascontiguousarray(channels), None, name, SourceSeries(name, series, (frame,)))
