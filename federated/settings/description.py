"""What a data set of one's own is, as its ``dataset.yaml`` says it.

A description says what a network is to learn, what the images are and what the labels mean; for a
table also what its columns mean. It names no place of the machine: the folder that it lies in is
the data set.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from federated.settings.base import Settings
from federated.settings.names import PATTERN
from federated.settings.target import Target

DescribedTask = Literal["segmentation", "classification", "multilabel", "regression"]
# Networks halve the sides of an image three times.
MULTIPLE = 8
# Masks are uint8 where they are written.
MOST_LABEL = 255
# A description stands in the header of every model that was trained on the set.
LONGEST = 6_000

# The column of labels where none is stated.
LABEL = "label"

Text = Annotated[str, Field(min_length=1, max_length=200)]
Side = Annotated[int, Field(ge=MULTIPLE, le=1024)]
Millimetres = Annotated[float, Field(ge=0.01, le=100)]


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not ends[0] < ends[1]:
        raise ValueError(f"a range goes from a number to a larger one, not {list(ends)}")
    return ends


class Columns(Settings):
    """What the columns of ``cases.csv`` mean; upper and lower case do not matter.

    ``images`` hold the image's files, a column for each modality in their order. ``label`` is the
    class of a case, or the number of a regression; a multi-label set has a column with 0 and 1 for
    each finding. A role that is left out is played by the column of its own name, if the table has
    one; one that is stated has to be there. ``attributes`` are kept and counted; ``ignored``
    columns are left alone.
    """

    case: Text | None = None
    patient: Text | None = None
    site: Text | None = None
    split: Text | None = None
    images: tuple[Text, ...] = ()
    mask: Text | None = None
    label: Text | tuple[Text, ...] | None = None
    attributes: tuple[Text, ...] = ()
    ignored: tuple[Text, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns of labels that are stated, none or several."""
        if self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label

    def named(self) -> tuple[str, ...]:
        """Every column that is named, by any role."""
        roles = (self.case, self.patient, self.site, self.split, self.mask)
        own = [column for column in roles if column is not None]
        return (*own, *self.images, *self.labels, *self.attributes, *self.ignored)


# The lowest and the highest value of a column of numbers.
Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class Features(Settings):
    """Numbers that were derived from each case's image, and how they are harmonised over sites.

    ``columns`` maps columns of ``cases.csv`` to the range that everyone knows their values to be
    in, and so does ``covariates`` for columns whose effects on the features are to be kept, as age.
    With ``combat`` what a site adds to a feature and multiplies it by is taken off
    (:mod:`federated.planning.combat`); docs/harmonisation.md says when that is right.
    """

    harmonise: Literal["combat"]
    columns: Mapping[Text, Range] = Field(min_length=1, max_length=500)
    covariates: Mapping[Text, Range] = Field(default_factory=dict, max_length=20)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of features and then of covariates, in lower case."""
        return tuple(name.lower() for name in (*self.columns, *self.covariates))


class DicomSettings(Settings):
    """How those files of a described set are read that are DICOM; see docs/dicom.md.

    Slices at ``uneven`` distances and those of a ``tilted`` gantry are resampled where it says so.
    ``structures`` are the names of segments or contoured structures, and their values as they stand
    in ``labels``. With ``overlap: first`` a voxel of several belongs to the one named first.
    """

    uneven: Literal["refuse", "resample"] = "refuse"
    tilted: Literal["refuse", "resample"] = "refuse"
    overlap: Literal["refuse", "first"] = "refuse"
    structures: Mapping[str, Annotated[int, Field(ge=1, le=255)]] = Field(default_factory=dict)


class Description(Settings):
    """A data set without code.

    ``kind`` is what an image is: a 2D picture, or a 3D volume with a place in the world. ``layout``
    is how the files lie: a ``table`` ``cases.csv``, nnU-Net's raw folder or a task of the Decathlon
    with their ``dataset.json``, or MedMNIST-like ``arrays`` in one ``.npz``. ``folder`` names
    another folder beside this one where the files are, for a second description of the same images.

    ``labels`` maps each class to its value, or the list of its values: of a mask's voxels in
    segmentation, where one of them is 0, or in the label's column. ``window`` in Hounsfield units
    is for CT alone. ``spacing`` in mm is what volumes are resampled to, and ``shape`` in voxels or
    pixels what a network sees at once: whole cases where ``whole``, patches otherwise. ``auto``
    takes them from the images, and ``whole`` too where it is left out.
    ``target`` is the range of the number of a regression: nobody takes it from a site's labels.
    ``mirrored`` are the axes along which a mirrored case could be a real one, in RAS order for
    volumes, height and width for pictures. ``colours`` is of ``arrays`` alone, and taken from them:
    1 where they are grey, and 3 where they have a last axis of colours.
    """

    title: str = Field(default="", max_length=200)
    task: DescribedTask
    kind: Literal["pictures", "volumes"]
    layout: Literal["table", "nnunet", "decathlon", "arrays"] = "table"
    folder: Text | None = None
    modalities: tuple[Text, ...] = Field(default=("image",), min_length=1, max_length=16)
    labels: Mapping[str, Any] = Field(default_factory=dict)
    target: Target | None = None
    window: tuple[float, ...] | None = None
    spacing: tuple[Millimetres, ...] | Literal["auto"] = "auto"
    shape: tuple[Side, ...] | Literal["auto"] = "auto"
    whole: bool | None = None
    mirrored: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()
    colours: Literal[1, 3] | None = None
    columns: Columns = Columns()
    dicom: DicomSettings = DicomSettings()
    # Left out where there are none, so that what was described before stays what it was.
    features: Features | None = Field(default=None, exclude_if=lambda value: value is None)
    licence: Text
    source: str = Field(default="", max_length=500)

    @property
    def dims(self) -> Literal[2, 3]:
        """How many axes an image has."""
        return 2 if self.kind == "pictures" else 3

    def __hash__(self) -> int:
        """By what it says: its mappings have no hash of their own."""
        return hash(self.model_dump_json())

    @property
    def channels(self) -> int:
        """The channels of one case, all modalities together; every picture of a table has three."""
        each = self.colours or (3 if self.kind == "pictures" else 1)
        return len(self.modalities) * each

    @property
    def segments(self) -> bool:
        """Whether a class is to be learned for each voxel."""
        return self.task == "segmentation"

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be taken from the images."""
        spaced = self.kind == "pictures" or self.spacing != "auto"
        return spaced and self.shape != "auto"

    @property
    def passes_whole(self) -> bool:
        """Whether a network sees whole cases; where nobody says, all but segmented ones."""
        return not self.segments if self.whole is None else self.whole

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, the columns of a multi-label set, or that of the number.

        Background comes first, and others in the order of their values: keys that somebody has
        written, or a program has sorted, in another order are the same classes.
        """
        if self.task == "multilabel":
            return self.columns.labels
        if self.task == "regression":
            return self.columns.labels or (LABEL,)
        if self.segments:
            background = next(name for name in self.labels if 0 in self.values(name))
            others = [name for name in self.labels if name != background]
            return (background, *sorted(others, key=self._first_value))
        return tuple(sorted(self.labels, key=self._first_value))

    def _first_value(self, name: str) -> tuple[bool, int, str]:
        """What classes are ordered by: numbers first, then texts."""
        value = self.values(name)[0]
        return (False, value, "") if isinstance(value, int) else (True, 0, value)

    def values(self, name: str) -> tuple[int | str, ...]:
        """The values in files that stand for a class."""
        return _values(self.labels[name])

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ where anything in two descriptions does."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return sha256(told.encode()).hexdigest()[:12]

    def names_of_outputs(self) -> Columns:
        """Its columns without all that do not name what a network predicts."""
        named = self.task in ("multilabel", "regression")
        return Columns(label=self.columns.label) if named else Columns()

    def of_model(self) -> "Description":
        """What a model has to know of it: nothing of columns, folders and where the files are."""
        columns = self.names_of_outputs()
        layout = "arrays" if self.layout == "arrays" else "table"
        told = {"folder": None, "layout": layout, "columns": columns, "features": None}
        return self.model_copy(update=told)

    @model_validator(mode="after")
    def _goes_together(self) -> "Description":
        for fault in self._faults():
            raise ValueError(fault)
        return self

    def _faults(self) -> Iterator[str]:
        yield from _faults_of_labels(self)
        yield from _faults_of_target(self)
        yield from _faults_of_images(self)
        yield from _faults_of_columns(self)
        if self.folder is not None and not PATTERN.fullmatch(self.folder):
            yield (
                f"folder={self.folder!r:.100} has to be the name of a folder beside this one, "
                "without a path"
            )
        if len(self.model_dump_json()) > LONGEST:
            yield (
                f"it is longer than {LONGEST} characters, which every model of the set would "
                "carry. Shorten the names of labels and columns"
            )


def _values(given: Any) -> tuple[int | str, ...]:
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _faults_of_labels(description: Description) -> Iterator[str]:
    labels, task = description.labels, description.task
    if task in ("multilabel", "regression"):
        if labels:
            yield (
                f"labels names classes, and task={task} takes the values of the label's columns "
                "as they are. Leave it out"
            )
        return
    if len(labels) < 2:
        yield (
            "labels needs at least two classes, each with its value, as {background: 0, lesion: 1}"
        )
        return
    if any(not 0 < len(name) <= 200 for name in labels):
        yield "labels has a class whose name is empty or longer than 200 characters"
    every = [value for given in labels.values() for value in _values(given)]
    wrong = [
        value for value in every if isinstance(value, bool) or not isinstance(value, int | str)
    ]
    if wrong or any(not _values(given) for given in labels.values()):
        said = repr(wrong[0])[:100] if wrong else "no value for a class"
        yield (
            f"labels has {said}; each class has a whole number or a text, or a list of these. Put "
            "words that YAML reads as something else, such as true, in quotes"
        )
        return
    if twice := [value for value, times in Counter(map(str, every)).items() if times > 1]:
        yield f"labels gives the value {twice[0]!r:.100} to two classes"
    if not description.segments:
        return
    if any(not isinstance(value, int) or not 0 <= value <= MOST_LABEL for value in every):
        yield f"labels of a mask's voxels are whole numbers from 0 to {MOST_LABEL}"
    elif 0 not in every:
        yield "labels has no class with the value 0, which is the background of a mask"


def _faults_of_target(description: Description) -> Iterator[str]:
    """What is wrong with the range of a number, which a regression needs and no other task has."""
    if description.task != "regression":
        if description.target is not None:
            yield f"target is the number of a regression, and task={description.task}. Leave it out"
    elif description.target is None:
        yield (
            "task=regression needs the range of its number, as target: {low: 0, high: 100}. It is "
            "not taken from the labels, which would tell the least and the largest of them"
        )


def _faults_of_images(description: Description) -> Iterator[str]:
    dims, kind = description.dims, description.kind
    if description.window is not None:
        if kind == "pictures":
            yield "window is in Hounsfield units, which pictures do not have. Leave it out"
        elif len(description.window) != 2 or description.window[0] >= description.window[1]:
            yield "window has to be two numbers, the lower one first, as [-160, 240]"
    if description.spacing != "auto":
        if kind == "pictures":
            yield "spacing is in mm, which pictures do not have. Leave it out"
        elif len(description.spacing) != dims:
            yield f"spacing has to be `auto` or {dims} numbers in mm, as [1, 1, 1]"
    if description.shape != "auto":
        uneven = description.segments and any(side % MULTIPLE for side in description.shape)
        if len(description.shape) != dims or uneven:
            numbers = f"{dims} multiples of {MULTIPLE}" if description.segments else f"{dims} sides"
            yield f"shape has to be `auto` or {numbers}, one for each axis of {kind}"
    if description.whole is False and not description.segments:
        yield f"whole=false draws patches, which task={description.task} cannot learn from"
    if repeated(description.mirrored) or any(axis >= dims for axis in description.mirrored):
        yield f"mirrored has to name axes of an image from 0 to {dims - 1}, each once"
    if repeated(description.modalities):
        yield "modalities has a name twice"


def _faults_of_columns(description: Description) -> Iterator[str]:
    columns, layout, task = description.columns, description.layout, description.task
    yield from _faults_of_features(description)
    if layout != "table" and columns != Columns():
        yield f"columns are those of cases.csv, and layout={layout} has none. Leave it out"
    if layout in ("nnunet", "decathlon") and not description.segments:
        yield f"layout={layout} holds masks, so task has to be segmentation, not {task}"
    if description.colours is not None and layout != "arrays":
        yield f"colours are those of arrays, and layout={layout} has none. Leave it out"
    if layout == "arrays" and task != "classification":
        yield f"layout=arrays holds a class for each image; task={task} needs a table"
    if columns.images and len(columns.images) != len(description.modalities):
        yield (
            f"columns.images has {len(columns.images)} columns, and modalities has "
            f"{len(description.modalities)}; each modality has a column of its own"
        )
    if twice := repeated(name.lower() for name in columns.named()):
        yield f"columns gives two meanings to the column {twice[0]!r}"
    if len(columns.labels) > 1 and task != "multilabel":
        yield f"columns.label has {len(columns.labels)} columns, and task={task} has one label"
    if task == "multilabel" and len(columns.labels) < 2 and description.layout == "table":
        yield "columns.label of task=multilabel has to list a column for each finding"


def _faults_of_features(description: Description) -> Iterator[str]:
    features, columns = description.features, description.columns
    if features is None:
        return
    if description.layout != "table":
        yield f"features are columns of cases.csv, and layout={description.layout} has none"
    single = (columns.case, columns.patient, columns.site, columns.split, columns.mask)
    used = {name.lower() for name in (*single, *columns.images, *columns.ignored) if name}
    labels = {name.lower() for name in columns.labels}
    for name in (*features.columns, *features.covariates):
        if name.lower() in used or (name in features.columns and name.lower() in labels):
            yield f"features names the column {name!r}, which has another meaning in columns"
    if twice := repeated(features.names):
        yield f"features gives two meanings to the column {twice[0]!r}"


def repeated(names: Iterable[Any]) -> list[Any]:
    """What is there more than once."""
    return [name for name, times in Counter(names).items() if times > 1]
