"""Who is named in DICOM: what identifies a patient in a series.

Values never leave this module: what is told are names of attributes and in how many files they
have a value.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom import DataElement, Dataset

from federated.data.folders.dicom.objects import DicomObject, objects_in
from federated.data.folders.dicom.quiet import quiet

# Attributes that say who a patient is, where or when they were examined, or by whom, beyond those
# whose type says so (PS3.15, table E.1-1, the attributes that its basic profile removes or
# replaces).
IDENTIFYING = frozenset(
    (
        *("PatientID", "OtherPatientIDs", "IssuerOfPatientID", "PatientAddress", "PatientComments"),
        *("PatientTelephoneNumbers", "PatientInsurancePlanCodeSequence", "MedicalRecordLocator"),
        *(
            "MilitaryRank",
            "BranchOfService",
            "EthnicGroup",
            "Occupation",
            "PatientReligiousPreference",
        ),
        *(
            "AdditionalPatientHistory",
            "PatientBirthTime",
            "PatientSex",
            "PatientAge",
            "PatientSize",
        ),
        *("PatientWeight", "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription"),
        *("ProtocolName", "RequestedProcedureDescription", "RequestedProcedureID", "AdmissionID"),
        *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName"),
        *("DeviceSerialNumber", "DeviceUID", "ImageComments", "FrameComments", "TextComments"),
        *("DerivationDescription", "CurrentPatientLocation", "PatientState", "RegionOfResidence"),
        *("CountryOfResidence", "PerformedProcedureStepDescription", "PerformedProcedureStepID"),
        *("ContentCreatorIdentificationCodeSequence", "ClinicalTrialSubjectID", "StructureSetName"),
        *("ReferringPhysicianIdentificationSequence", "ReferringPhysicianAddress"),
    )
)
PERSON, DATES = "PN", ("DA", "DT")
# Kinds of images into which names are often burned: screenshots, ultrasound, films.
OFTEN_BURNED = ("US", "XA", "RF", "OT", "SC", "ES", "GM", "XC", "IVUS", "DF", "RG")
CAPTURED = "1.2.840.10008.5.1.4.1.1.7"
OVERLAYS = range(0x6000, 0x6020, 2)


@dataclass(frozen=True)
class Identifying:
    """What identifies patients in the DICOM of a folder.

    ``files`` is how many objects there are. ``attributes`` are the names of standard attributes
    with a value, and in how many files each has one; ``private`` is the number of files with
    private attributes, of which nobody knows what they hold. ``burned_in`` is the number of files
    that say that their pixels name somebody, ``perhaps_burned_in`` that of screenshots, ultrasound
    and the like that do not say that they do not, and ``overlays`` that of files with drawings over
    the image. ``said_removed`` is the number of files that say that identity was removed.
    """

    files: int
    attributes: dict[str, int]
    private: int
    burned_in: int
    perhaps_burned_in: int
    overlays: int
    said_removed: int


@quiet()
def identifying(path: Path) -> Identifying:
    """What identifies patients in a file, or in all DICOM in a folder and below it.

    Attributes in sequences count too. No value is told, and none is in a message.

    Raises:
        ConsiliumError: the path is missing, or a file that should be DICOM cannot be read.
    """
    counts: Counter[str] = Counter()
    objects = objects_in(path)
    for found in objects:
        counts.update(set(_identifying_in(found.header)))
    flags = Counter(flag for found in objects for flag in _flags(found))
    return Identifying(
        files=len(objects),
        attributes=dict(sorted(counts.items())),
        private=flags["private"],
        burned_in=flags["burned in"],
        perhaps_burned_in=flags["perhaps burned in"],
        overlays=flags["overlays"],
        said_removed=flags["removed"],
    )


def _identifying_in(dataset: Dataset) -> Iterator[str]:
    for element in _elements(dataset):
        if element.tag.is_private or not element.keyword:
            continue
        of_type = element.VR == PERSON or element.VR in DATES
        if (of_type or element.keyword in IDENTIFYING) and not element.is_empty:
            yield element.keyword


def _elements(dataset: Dataset) -> Iterator[DataElement]:
    """All elements, those of sequences too; one that cannot be understood is passed over."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # what pydicom says of it has the value  # noqa: S112
            continue
        yield element
        if element.VR == "SQ":
            for item in element.value:
                yield from _elements(item)


def _flags(found: DicomObject) -> Iterator[str]:
    header = found.header
    if any(element.tag.is_private for element in _elements(header)):
        yield "private"
    burned = found.text("BurnedInAnnotation").upper()
    if burned == "YES":
        yield "burned in"
    elif burned != "NO" and (
        found.text("Modality") in OFTEN_BURNED or found.text("SOPClassUID").startswith(CAPTURED)
    ):
        yield "perhaps burned in"
    if any((group, 0x3000) in header for group in OVERLAYS):
        yield "overlays"
    if found.text("PatientIdentityRemoved").upper() == "YES":
        yield "removed"
