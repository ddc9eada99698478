"""Small DICOM files, made for a test: series of slices, objects of many frames, structure sets."""

from pathlib import Path

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import (
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
)

CLASSES = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "PT": PositronEmissionTomographyImageStorage,
    "DX": DigitalXRayImageStorageForPresentation,
}
SERIES, FRAME = "2.25.11", "2.25.22"
NAME = "DOE^JOHN"
# Pixels of 0.7 mm across and 0.5 mm down, slices of 3 mm.
SPACING, STEP = (0.5, 0.7), 3.0
AXIAL = (1, 0, 0, 0, 1, 0)
ORIGIN = np.array([-20.0, -30.0, 100.0])


def voxels(slices=6, rows=10, columns=8, seed=0):
    """Whole numbers ``(slices, rows, columns)``, all slices different."""
    return np.random.default_rng(seed).integers(0, 2000, (slices, rows, columns)).astype(np.uint16)


def blank(sop_class, modality, series=SERIES, instance="2.25.1000"):
    """An object with who, what and where from, but no image."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = instance
    made.PatientName, made.PatientID = NAME, "MRN-4711"
    made.PatientBirthDate, made.PatientSex = "19500102", "F"
    made.StudyInstanceUID, made.SeriesInstanceUID = "2.25.5", series
    made.StudyDate, made.StudyTime, made.AccessionNumber, made.StudyID = "20200101", "", "", ""
    made.SeriesNumber, made.Modality = 3, modality
    made.FrameOfReferenceUID = FRAME
    return made


def pixels(made, values, signed=False, bits=None):
    """Give an object pixels, ``([frames,] rows, columns[, 3])``."""
    made.Rows, made.Columns = values.shape[:2] if values.shape[-1] == 3 else values.shape[-2:]
    made.SamplesPerPixel = 3 if values.shape[-1] == 3 else 1
    made.PhotometricInterpretation = "RGB" if values.shape[-1] == 3 else "MONOCHROME2"
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = 8 * values.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit, made.PixelRepresentation = made.BitsStored - 1, int(signed)
    content = values.tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB" if made.BitsAllocated == 8 else "OW"
    return made


def placed(made, position, cosines=AXIAL, spacing=SPACING):
    made.ImagePositionPatient = [float(value) for value in position]
    made.ImageOrientationPatient = [float(value) for value in cosines]
    made.PixelSpacing = list(spacing)
    return made


def slices_of(values, modality="MR", positions=None, cosines=AXIAL, series=SERIES, signed=False):
    """An object for each slice, in the order of their positions."""
    normal = np.cross(cosines[:3], cosines[3:])
    made = []
    for index, image in enumerate(values):
        at = ORIGIN + index * STEP * normal if positions is None else positions[index]
        one = blank(CLASSES[modality], modality, series, f"{series}.{index + 1}")
        one.InstanceNumber, one.SliceThickness = index + 1, STEP
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        if modality == "CT":
            one.RescaleSlope, one.RescaleIntercept = 1, -1024
        made.append(pixels(placed(one, at, cosines), image, signed))
    return made


def saved(folder: Path, objects, names=None):
    """Save objects into a folder, by default under names that tell nothing of their order."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(1).permutation(len(objects))
    for index, made in enumerate(objects):
        name = names[index] if names else f"IM{order[index]:04d}"
        made.save_as(folder / name, enforce_file_format=True)
    return folder


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def enhanced(values, heights, slopes=None, echoes=None):
    """An enhanced MR object whose frames lie at ``heights``, in their order."""
    made = blank(EnhancedMRImageStorage, "MR")
    made.NumberOfFrames = len(values)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    pixels(made, values)
    shared = item(
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
        PixelMeasuresSequence=[item(PixelSpacing=list(SPACING), SliceThickness=STEP)],
    )
    made.SharedFunctionalGroupsSequence = [shared]
    made.PerFrameFunctionalGroupsSequence = []
    for index, height in enumerate(heights):
        position = [*ORIGIN[:2].tolist(), float(height)]
        groups = item(PlanePositionSequence=[item(ImagePositionPatient=position)])
        if slopes is not None:
            scale = item(RescaleSlope=slopes[index], RescaleIntercept=0, RescaleType="US")
            groups.PixelValueTransformationSequence = [scale]
        if echoes is not None:
            groups.MREchoSequence = [item(EffectiveEchoTime=echoes[index])]
        made.PerFrameFunctionalGroupsSequence.append(groups)
    return made


def structure_set(structures, frame=FRAME, kind="CLOSED_PLANAR"):
    """A structure set: by the name of a structure its contours, each points ``(n, 3)`` in mm."""
    made = blank(RTStructureSetStorage, "RTSTRUCT", "2.25.77", "2.25.78")
    del made.FrameOfReferenceUID
    made.StructureSetLabel = "test"
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures, start=1):
        made.StructureSetROISequence.append(
            item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
        )
        sequence = [
            item(
                ContourGeometricType=kind,
                NumberOfContourPoints=len(points),
                ContourData=[float(value) for value in np.ravel(points)],
                # Of an image that is nowhere, as in sets that were made anonymous.
                ContourImageSequence=[item(ReferencedSOPInstanceUID=f"2.25.9{number}")],
            )
            for points in contours
        ]
        made.ROIContourSequence.append(item(ReferencedROINumber=number, ContourSequence=sequence))
    return made


def box(x0, x1, y0, y1, level, step=STEP):
    """A rectangle in columns and rows of a slice, as points in mm."""
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)
    x, y = (corners * (SPACING[1], SPACING[0])).T
    return np.stack([x, y, np.full(4, level * step)], axis=1) + ORIGIN


def segmentation(images, mask, names, kind="BINARY", **more):
    """A DICOM-SEG by highdicom; ``mask`` ``(slices, rows, columns, segments)``."""
    by = highdicom.AlgorithmIdentificationSequence(
        "test", Code("123110", "DCM", "Artificial Intelligence"), "1"
    )
    described = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            Code("309825002", "SCT", "Spatial and Relational Concept"),
            Code(str(number), "99TEST", name),
            "AUTOMATIC",
            by,
        )
        for number, name in enumerate(names, start=1)
    ]
    return highdicom.seg.Segmentation(
        *(images, mask, kind, described, "2.25.88", 9, "2.25.89", 1, "test", "test", "1", "1"),
        **more,
    )
