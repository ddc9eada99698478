"""The pixels of a frame as numbers that mean something: Hounsfield units, activity, grey values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, RLELossless

from federated.data.folders.dicom.frames import Frame, frames_in
from federated.data.folders.dicom.objects import DicomObject, whole_dataset
from federated.errors import ConsiliumError

Array = npt.NDArray[Any]

# Modalities whose values are quantities: how they are to be shown does not change them.
QUANTITIES = ("CT", "PT", "NM")
INVERTED = "MONOCHROME1"
PALETTE = "PALETTE COLOR"
# The mark at the end of an image in JPEG, JPEG-LS and JPEG 2000.
END = b"\xff\xd9"
# What makes the length of a frame even, by the standard or not.
PADDING = b"\0\xff"


def stored_values(found: DicomObject) -> Array:
    """The values of all frames as they are stored, ``(frames, rows, columns)``.

    Those of a colour image are RGB, ``(frames, rows, columns, 3)``.

    Raises:
        ConsiliumError: no decoder of the transfer syntax is installed, or the pixels are truncated,
            damaged, or not so many as the header says.
    """
    _refuse_undecodable(found)
    dataset = whole_dataset(found)
    try:
        _refuse_unended(dataset, frames_in(found))
        values = pixel_array(dataset)
        if found.text("PhotometricInterpretation") == PALETTE:
            values = apply_color_lut(values, dataset)
    except MemoryError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise ConsiliumError(
            f"The pixels of {found.name} cannot be decoded ({type(error).__name__}): they are "
            "truncated, damaged, or not as its header says. Put a whole copy there."
        ) from None
    header = found.header
    coloured = found.text("PhotometricInterpretation") == PALETTE
    colours = (3,) if coloured or int(header.get("SamplesPerPixel") or 1) > 1 else ()
    shape = (frames_in(found), int(header.Rows), int(header.Columns), *colours)
    if values.size != int(np.prod(shape)):
        raise ConsiliumError(
            f"The pixels of {found.name} are {values.size} values; by its header they are "
            f"{'x'.join(map(str, shape))}. It is damaged; put a whole copy there."
        )
    return values.reshape(shape)


def meant_values(frame: Frame, stored: Array) -> Array:
    """The values of a frame ``(rows, columns)`` as they are meant.

    They are scaled by the frame's own slope and intercept, or by its table. Where 0 is white
    (MONOCHROME1) stored values are turned over first, unless they are quantities, of which that
    says no more than how they are shown.

    Raises:
        ConsiliumError: the slope is 0 or no number, or CT does not say how it becomes Hounsfield
            units.
    """
    values = stored
    modality = frame.found.text("Modality")
    if frame.found.text("PhotometricInterpretation") == INVERTED and modality not in QUANTITIES:
        values = _turned_over(frame, stored)
    table = frame.get("ModalityLUTSequence")
    if table:
        holder = Dataset()
        holder.ModalityLUTSequence = table
        holder.file_meta = frame.found.header.file_meta
        return np.asarray(apply_modality_lut(values, holder))
    slope, intercept = frame.get("RescaleSlope"), frame.get("RescaleIntercept")
    if slope is None and intercept is None:
        if modality == "CT" and frame.place is not None:
            raise ConsiliumError(
                f"The CT image {frame.name} has neither RescaleSlope nor RescaleIntercept, so that "
                "its values are in no known unit. Take the series from where it was made."
            )
        return values
    try:
        slope, intercept = (float(1 if slope is None else slope), float(intercept or 0))
    except Exception:  # no numbers
        slope = intercept = float("nan")
    if not np.isfinite(slope) or not np.isfinite(intercept) or slope == 0:
        raise ConsiliumError(
            f"The image {frame.name} has a RescaleSlope that is 0, or no number, or such a "
            "RescaleIntercept. It is damaged; take the series from where it was made."
        )
    if (slope, intercept) == (1.0, 0.0):
        return values
    return values.astype(np.float64) * slope + intercept


def is_padding(frame: Frame, stored: Array) -> npt.NDArray[np.bool_]:
    """Where a frame holds no image: PixelPaddingValue, to PixelPaddingRangeLimit if there is one.

    It is compared with values as they are stored (PS3.3 C.7.5.1.1.2).
    """
    first = frame.found.header.get("PixelPaddingValue")
    if first is None or not isinstance(first, int):
        return np.zeros(stored.shape, bool)
    last = frame.found.header.get("PixelPaddingRangeLimit")
    ends = [_as_stored(end, frame) for end in (first, first if last is None else last)]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def refuse_mixed(name: str, frames: Sequence[Frame]) -> None:
    """Refuse slices whose values are in different units.

    Raises:
        ConsiliumError: they are.
    """
    for keyword in ("Units", "RescaleType"):
        units = sorted({str(frame.get(keyword) or "") for frame in frames})
        if len(units) > 1:
            raise ConsiliumError(
                f"The slices of {name} are in different units, by their {keyword}: "
                f"{', '.join(unit or 'none' for unit in units)}. Leave those of one unit there."
            )


def _turned_over(frame: Frame, stored: Array) -> Array:
    bits = int(frame.found.header.get("BitsStored") or 8 * stored.dtype.itemsize)
    signed = stored.dtype.kind == "i"
    # The lowest value becomes the highest one that the bits can hold.
    return np.asarray((-1 if signed else 2**bits - 1) - stored.astype(np.int64), stored.dtype)


def _as_stored(value: int, frame: Frame) -> int:
    """A padding value with the sign of the pixels, which its own type may lack."""
    bits = int(frame.found.header.get("BitsAllocated") or 16)
    signed = bool(frame.found.header.get("PixelRepresentation"))
    span = 1 << bits
    if signed and 2 * value >= span:
        return value - span
    return value + span if not signed and value < 0 else value


def _refuse_unended(dataset: Dataset, frames: int) -> None:
    """Refuse a frame whose compressed bytes end before their end mark.

    Decoders of JPEG and JPEG-LS fill up what is missing without a word.

    Raises:
        EOFError: a frame is not whole.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
            if not frame.rstrip(PADDING).endswith(END):
                raise EOFError("it has no end mark")


def _refuse_undecodable(found: DicomObject) -> None:
    header = found.header
    bits = int(header.get("BitsStored") or 0)
    high = header.get("HighBit")
    if high is not None and bits and int(high) != bits - 1:
        raise ConsiliumError(
            f"The image {found.name} keeps its {bits} bits below bit {int(high)} (HighBit), which "
            "the standard has given up and no decoder heeds. Ask the archive for a newer copy."
        )
    syntax = UID(str(header.file_meta.TransferSyntaxUID))
    known = syntax.name if syntax.name != syntax else "unknown"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:  # pydicom's word for a syntax that it does not know
        raise ConsiliumError(
            f"The pixels of {found.name} are in the transfer syntax {known} ({syntax}), which "
            "cannot be decoded here. Ask the archive for the series in Explicit VR Little Endian."
        ) from None
    if not decoder.is_available:
        needed = "; or ".join(decoder.missing_dependencies)
        raise ConsiliumError(
            f"The pixels of {found.name} are in the transfer syntax {known} ({syntax}), and no "
            f"package that decodes it is installed: {needed}. Install one (for JPEG lossless and "
            "JPEG of 12 bits `pip install 'consilium[jpeg]'`), or convert the series to Explicit "
            "VR Little Endian."
        )
