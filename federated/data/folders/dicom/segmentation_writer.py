"""A predicted mask as DICOM-SEG, which refers to each slice that it was predicted from."""

from collections.abc import Sequence
from copy import copy
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from federated.data.folders.dicom.algorithm import Algorithm
from federated.data.folders.dicom.frames import frames_in
from federated.data.folders.dicom.quiet import quiet
from federated.data.folders.dicom.source import SourceSeries
from federated.errors import ConsiliumError

if TYPE_CHECKING:
    from highdicom.seg import Segmentation, SegmentDescription

MAKER = "Consilium"
# What has no value of its own in the standard's codes has one in a scheme of this project.
SCHEME = "99CONSILIUM"
# CID 7150 and CID 7162 of PS3.16: the widest category, since nothing says what a class is; and AI.
CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")
FAMILY = Code("123110", "DCM", "Artificial Intelligence")
SERIES_NUMBER = 9000
# The longest texts of the types SH and LO.
SHORT, LONG = 16, 64
# What a segmentation copies of its images, and may be missing there though the standard asks.
REQUIRED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
SEXES = ("M", "F", "O")
# For the UIDs of ISO/IEC 9834-8, which are made of a number of 128 bits.
ROOT = "2.25"


@quiet()
def segmentation_bytes(
    labels: npt.NDArray[np.uint8],
    source: SourceSeries,
    classes: Sequence[str],
    algorithm: Algorithm,
) -> bytes:
    """A DICOM-SEG file with a segment for each class but the background, by highdicom.

    ``labels`` are those of the volume ``(x, y, z)``, or of a picture ``(height, width)``; they are
    laid on the slices that the volume was read from, and a slice without any has no frame. Patient
    and study are those of the images, so that an archive finds the segmentation beside them: the
    file is for the site alone. The same mask of the same series by the same model has the same UID.

    Raises:
        ConsiliumError: the headers of the series do not allow it.
    """
    # Importing it takes a second.
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription

    by = AlgorithmIdentificationSequence(
        algorithm.name[:LONG], FAMILY, algorithm.version[:LONG], source=MAKER
    )
    segments = [
        SegmentDescription(
            number,
            name[:LONG],
            CATEGORY,
            Code(f"{number}-{name}"[:SHORT], SCHEME, name[:LONG]),
            "AUTOMATIC",
            by,
        )
        for number, name in enumerate(classes[1:], start=1)
    ]
    images, pixels = _images(source, source.on_slices(labels))
    identity = [source.series, algorithm.name, algorithm.version, *classes]
    identity += [str(image.SOPInstanceUID) for image in images]
    digest = sha256("\0".join(identity).encode() + pixels.tobytes())
    try:
        made = _segmentation(
            images,
            pixels,
            segments,
            (_uid(digest.digest() + b"series"), _uid(digest.digest() + b"instance")),
            f"{algorithm.name} {algorithm.version}"[:LONG],
        )
        file = BytesIO()
        made.save_as(file, enforce_file_format=True)
    except Exception as error:  # of values in the headers, which what it says would quote
        raise ConsiliumError(
            f"No DICOM-SEG can be made that refers to {source.name}: its headers have a value that "
            f"the standard does not allow ({type(error).__name__}). Take the series from where it "
            "was made, or convert it to NIfTI and predict that."
        ) from None
    return file.getvalue()


def _segmentation(
    images: Sequence[Dataset],
    pixels: npt.NDArray[np.uint8],
    segments: "Sequence[SegmentDescription]",
    uids: tuple[str, str],
    description: str,
) -> "Segmentation":
    from highdicom.seg import Segmentation, SegmentationTypeValues

    return Segmentation(
        images,
        pixels,
        SegmentationTypeValues.BINARY,
        segments,
        series_instance_uid=uids[0],
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=version("consilium"),
        device_serial_number="none",
        content_label="SEGMENTATION",
        series_description=description,
        specific_character_set="ISO_IR 192",
    )


def _images(
    source: SourceSeries, slices: npt.NDArray[np.uint8]
) -> tuple[list[Dataset], npt.NDArray[np.uint8]]:
    """The headers that a segmentation is made from, and its pixels in the order of their frames."""
    objects = list(dict.fromkeys(frame.found for frame in source.frames))
    if all(frames_in(found) == 1 for found in objects):
        return [_complete(frame.found.header) for frame in source.frames], slices
    if len(objects) > 1:
        raise ConsiliumError(
            f"{source.name} consists of {len(objects)} objects of several frames each, which one "
            "DICOM-SEG cannot refer to. Convert it to NIfTI and predict that."
        )
    pixels = np.zeros((frames_in(objects[0]), *slices.shape[1:]), np.uint8)
    for frame, mask in zip(source.frames, slices, strict=True):
        pixels[frame.index] = mask
    return [_complete(objects[0].header)], pixels


def _complete(header: Dataset) -> Dataset:
    """A header with all that a segmentation copies, empty where it is missing or not allowed."""
    complete = copy(header)
    for keyword in REQUIRED:
        if complete.get(keyword) is None:
            setattr(complete, keyword, "")
    if complete.PatientSex not in SEXES:
        complete.PatientSex = ""
    for keyword, kind in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        try:
            kind(getattr(complete, keyword))
        except Exception:  # no date or time
            setattr(complete, keyword, "")
    for element in list(complete):
        if element.VR == "PN" and element.VM == 1:
            # As text, to be written in the segmentation's own character set.
            setattr(complete, element.keyword, str(element.value))
    return complete


def _uid(source: bytes) -> str:
    number = int.from_bytes(sha256(source).digest()[:16])
    return str(UID(f"{ROOT}.{number}"))
