"""A described set as a :class:`Family`, the value that a known family's module has.

Everything behind it (preparing, validation, training, prediction) cannot tell the two apart.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from federated.data.folders.described.case_table import find_cases
from federated.data.folders.described.dataset_json import find_decathlon, find_nnunet
from federated.data.folders.families.base import CaseNames, Family, Listing
from federated.settings.description import Description

# Not a label: what a value becomes that would pass for one though nobody has named it.
UNKNOWN = -1


def described_family(name: str, description: Description) -> Family:
    """The family of a description; of images that are classified, it says how they are prepared.

    Raises:
        ValueError: the description is not settled yet: something is ``auto``.
    """
    if not description.settled or description.shape == "auto":
        raise ValueError(f"{name} has values that are still to be taken from its images")
    spacing = None
    if description.kind == "volumes" and description.spacing != "auto":
        first, second, third = description.spacing
        spacing = (first, second, third)
    return Family(
        name=name,
        dims=description.dims,
        modalities=description.modalities,
        channels=description.channels,
        labels=description.classes,
        label_values=_label_values(description) if description.segments else {},
        spacing=spacing,
        shape=description.shape,
        whole=description.passes_whole,
        window=(description.window[0], description.window[1]) if description.window else None,
        mirrored=description.mirrored,
        licence=description.licence,
        source=description.source or description.title or name,
        layout=layout(description),
        find=partial(find, description),
        name_files=partial(name_files, description),
        labels_by="`labels` of dataset.yaml"
        if description.layout == "table"
        else "its dataset.json",
    )


def find(description: Description, folder: Path) -> Listing:
    """The cases of a described set's folder.

    Raises:
        ConsiliumError: what is there is not what the description says.
    """
    if description.layout == "nnunet":
        return find_nnunet(folder)
    if description.layout == "decathlon":
        return find_decathlon(folder)
    return find_cases(folder, description)


def layout(description: Description) -> str:
    """How the files of a described set lie, in words."""
    return {
        "table": "cases.csv, and the files that it names",
        "nnunet": "dataset.json, imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz (nnU-Net)",
        "decathlon": "dataset.json, imagesTr/NAME.nii.gz, labelsTr/NAME.nii.gz (Decathlon)",
        "arrays": "one file .npz with train_images, train_labels and the same of val and test",
    }[description.layout]


def name_files(description: Description, number: int) -> CaseNames:
    """The files of the n-th case of a generated folder, which has a table."""
    ending = ".png" if description.kind == "pictures" else ".nii.gz"
    name = f"case_{number:03d}"
    many = len(description.modalities) > 1
    images = tuple(
        f"images/{name}_{place}{ending}" if many else f"images/{name}{ending}"
        for place in range(len(description.modalities))
    )
    return CaseNames(images, f"masks/{name}{ending}")


def _label_values(description: Description) -> Mapping[int, int]:
    """From the values in masks to labels, where they differ.

    A family takes a value that it does not map for the label of that number: one that nobody has
    named must not pass for a label, as 1 where only 0 and 255 are named.
    """
    named = {
        int(value): label
        for label, name in enumerate(description.classes)
        for value in description.values(name)
    }
    known = {value: label for value, label in named.items() if value != label}
    return known | {label: UNKNOWN for label in set(named.values()) if label not in named}
