"""A trained network as one safetensors file: named tensors, and how to build the network."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from federated.calibration.of_model import ModelCalibration
from federated.configuration.explain import explain
from federated.data.dataset import TaskName
from federated.data.family_of import family_of, task_name
from federated.data.folders.described.family import described_family
from federated.data.folders.families import Family
from federated.data.folders.harmonised_family import harmonise_fault, harmonised
from federated.data.medmnist.files import DATASETS, dataset_info
from federated.errors import ConsiliumError, why_unreadable
from federated.files import atomic_path
from federated.settings.description import Description
from federated.settings.harmonisation import Harmonise, Landmarks
from federated.settings.networks import OF_ALL_ONCE, AnyNetwork
from federated.settings.target import Target
from federated.update import Vector
from federated.weights.bounded_file import open_tensors
from models.layout import in_channels_last

Millimetres = Annotated[float, Field(ge=0.01, le=100)]
ThreeSides = Annotated[tuple[Millimetres, ...], Field(min_length=3, max_length=3)]
PersonalTensors = Mapping[str, Mapping[str, Vector]]
SEPARATOR = "/"
# Beside a header's own keys: the digest of all that the file holds, so that no damage goes unseen.
DIGEST = "sha256"
# The most characters of a description, and of a name in it.
LONGEST_HEADER = 10_000
LONGEST_TEXT = 200
# The largest whole number in a network's settings: one beyond it would take all memory before
# tensors could be compared.
LARGEST_SETTING = 1024


@dataclass(frozen=True)
class ModelHeader:
    """Which network it is, for which images, and what it was trained on.

    ``size`` is that of MedMNIST's images in pixels or voxels, and ``spacing`` that of volumes in mm
    where it is not their data set's own; ``patch`` is what the network sees of them at once, where
    that is not the set's own either. ``described`` is what a set of somebody's own is, so that
    a model can be used where that set is not. ``harmonise`` and ``landmarks`` are the scale of
    intensities that it was trained on, which images are brought to in prediction. ``calibration``
    is what makes a classifier's probabilities neither too sure nor too shy. The ranges are
    those that a file may have; a network of numbers far beyond them would take all memory before
    anything of it could be compared with the file.
    """

    # For whoever reads a header from a file: it may have no key but these.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    network: AnyNetwork
    channels: Annotated[int, Field(ge=1, le=256)]
    classes: Annotated[int, Field(ge=1, le=10_000)]
    dims: Literal[2, 3]
    size: Annotated[int, Field(ge=1, le=1024)] | None
    dataset: Annotated[str, Field(max_length=LONGEST_TEXT)]
    data_source: Annotated[str, Field(max_length=LONGEST_TEXT)]
    spacing: Millimetres | ThreeSides | None = None
    described: Description | None = None
    harmonise: Harmonise = "none"
    landmarks: Landmarks | None = None
    patch: tuple[Annotated[int, Field(ge=8, le=2048)], ...] | None = None
    calibration: ModelCalibration | None = None

    def goal(self) -> TaskName:
        """What it was trained for."""
        return task_name(self.dataset, self.described)

    def target(self) -> Target | None:
        """The number that it predicts; ``None`` where it predicts something else."""
        if self.described is not None:
            return self.described.target
        return dataset_info(self.dataset).target if self.dataset in DATASETS else None

    def family(self) -> Family | None:
        """The segmentation set it was trained on, with its spacing; ``None`` for any other."""
        family = family_of(self.dataset, self.described)
        if family is None:
            return None
        seen = family.with_spacing(self.spacing).with_patch(self.patch)
        return harmonised(seen, self.harmonise, self.landmarks)

    def class_family(self) -> Family | None:
        """How images of any size are prepared for a classifier; ``None`` where they have its own.

        Those of MedMNIST's sets and of arrays are taken as they are.
        """
        if self.described is None or self.described.segments or self.described.layout == "arrays":
            return None
        return described_family(self.dataset, self.described).with_spacing(self.spacing)

    def class_names(self) -> tuple[str, ...]:
        """The names of what it predicts, in the order of the network's outputs.

        Raises:
            ConsiliumError: its data set is none that is known by name.
        """
        if self.described is not None:
            return self.described.classes
        if family := self.family():
            return family.labels
        names = dataset_info(self.dataset).classes if self.dataset in DATASETS else ()
        if len(names) != self.classes:
            raise ConsiliumError(
                f"The model says that it was trained on {self.dataset}, of which {self.classes} "
                f"outputs are not known by name. Give a model of one of {', '.join(DATASETS)}, of "
                "a segmentation set, or of a set with a description."
            )
        return names

    def image_shape(self) -> tuple[int, ...]:
        """The shape ``(channels, *spatial)`` of an image that a classifier takes."""
        if self.described is not None and self.described.shape != "auto":
            return (self.channels, *self.described.shape)
        return (self.channels, *(self.size or 0,) * self.dims)

    def build(self, seed: int) -> nn.Module:
        """The network, with random weights that depend on ``seed`` alone."""
        return self.network.build(self.channels, self.classes, self.dims, seed)

    def to_text(self) -> str:
        """The header as it stands in a file, without what the weights once started from."""
        left_out: dict[str, Any] = {"network": {"init"}}
        if self.described is None:
            left_out["described"] = True
        if self.harmonise == "none":
            left_out |= {"harmonise": True, "landmarks": True}
        if self.patch is None:
            left_out["patch"] = True
        if self.calibration is None:
            left_out["calibration"] = True
        told = HEADERS.dump_python(self, mode="json", exclude=left_out)
        return json.dumps(told)

    @staticmethod
    def from_text(text: str) -> "ModelHeader":
        """The header that :meth:`to_text` wrote.

        It may be of this version, or of one in which a network's settings were not nested.

        Raises:
            ValueError: the text is something else.
        """
        try:
            value = json.loads(text)
            if isinstance(value, dict) and "network" not in value:
                flat = ("name", "norm", *OF_ALL_ONCE)
                value["network"] = {key: value.pop(key) for key in flat if key in value}
            if isinstance(value, dict):
                value.pop(DIGEST, None)
            told_of_set = value.pop("described", None) if isinstance(value, dict) else None
            told = json.dumps(value)
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        _refuse_unlikely(value)
        header = HEADERS.validate_json(told, strict=True)
        if told_of_set is not None:
            header = replace(header, described=_description(told_of_set))
            _refuse_other_description(header)
        _refuse_other_outputs(header)
        _refuse_other_scale(header)
        _refuse_other_calibration(header)
        return header


HEADERS = TypeAdapter(ModelHeader)


def _refuse_unlikely(value: Any) -> None:
    """Refuse a network that says nothing of itself, more than is written, or is far too large.

    Raises:
        ValueError: it is one of these; the message says which.
    """
    network = value.get("network") if isinstance(value, dict) else None
    if not isinstance(network, dict):
        raise ValueError("it describes no network")
    lacks = [key for key in ("name", "norm") if key not in network]
    if lacks or "init" in network:
        said = f"has no {lacks[0]}" if lacks else "says what its weights started from"
        raise ValueError(f"its network {said}")
    if any(isinstance(told, int) and told > LARGEST_SETTING for told in network.values()):
        raise ValueError(f"its network has a setting beyond {LARGEST_SETTING}")


def _description(value: Any) -> Description:
    """The description that a header has of a set of somebody's own.

    Raises:
        ValueError: it is not possible; the message says why.
    """
    try:
        return Description.model_validate(value)
    except ValidationError as error:
        said = explain(error, Description.model_json_schema(), {})
        raise ValueError(f"its description of the data set is not possible: {said}") from error


def _refuse_other_scale(header: ModelHeader) -> None:
    """Refuse a standard scale that is not of the network's images.

    Raises:
        ValueError: it is not; the message says why.
    """
    family = family_of(header.dataset, header.described)
    if fault := harmonise_fault(family, header.harmonise, header.landmarks):
        raise ValueError(f"its scale of intensities is not possible: {fault}")


def _refuse_other_calibration(header: ModelHeader) -> None:
    """Refuse a calibration of what has no classes that exclude each other, or that is none.

    Raises:
        ValueError: it is one of these; the message says which.
    """
    if header.calibration is None:
        return
    if header.goal() != "classification":
        raise ValueError(f"it has a calibration of classes, which {header.goal()} has not")
    if fault := header.calibration.fault():
        raise ValueError(f"its calibration is not possible: {fault}")


def _refuse_other_description(header: ModelHeader) -> None:
    """Refuse a description that is not of the network's images, or says less than is needed.

    Raises:
        ValueError: it is one of these.
    """
    described = header.described
    if described is None:
        return
    same = (
        described.dims == header.dims
        and len(described.classes) == header.classes
        and described.settled
        and (described.layout == "arrays" or described.channels == header.channels)
    )
    if not same:
        raise ValueError("it describes other images than its network takes")


def _refuse_other_outputs(header: ModelHeader) -> None:
    """Refuse a number of outputs that a network for its task cannot have.

    Raises:
        ValueError: it is one of one class, or of several numbers.
    """
    goal = header.goal()
    if (header.classes == 1) != (goal == "regression"):
        raise ValueError(f"its network has {header.classes} outputs, which {goal} has not")


def save_model(
    path: Path, model: nn.Module, header: ModelHeader, personal: PersonalTensors | None = None
) -> None:
    """Write a model's ``state_dict``, its sites' own tensors, and the header atomically.

    ``personal`` holds, for each site, the tensors in which that site's model differs. The header is
    written with a digest of itself and of all tensors, by which :func:`load_model` sees damage.

    Raises:
        ConsiliumError: the folder cannot be written to.
    """
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    for site, own in (personal or {}).items():
        tensors |= {
            f"{site}{SEPARATOR}{name}": torch.from_numpy(np.array(value))
            for name, value in own.items()
        }
    text = header.to_text()
    told = json.loads(text) | {DIGEST: _digest(text, sorted(tensors.items()))}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"consilium": json.dumps(told)})


def read_header(path: Path | str) -> ModelHeader:
    """The header of a file written by :func:`save_model`.

    Raises:
        ConsiliumError: the file is missing, damaged or another safetensors file, or describes a
            network that cannot be.
    """
    with _opened(path) as file:
        text = (file.metadata() or {}).get("consilium", "")
        if not text:
            raise ValueError("it does not describe its network")
        if len(text) > LONGEST_HEADER:
            raise ValueError(f"its description has {len(text)} characters")
        return ModelHeader.from_text(text)


@contextmanager
def _opened(path: Path | str) -> Iterator[Any]:
    """Open a model's file to read from.

    Raises:
        ConsiliumError: the file is missing or damaged, or anything that is read of it is not as it
            should be.
    """
    try:
        with open_tensors(path, "pt") as file:
            yield file
    except (OSError, SafetensorError, ValueError) as error:
        said = why_unreadable(error)
        if isinstance(error, ValidationError):
            said = explain(error, HEADERS.json_schema(), {}).rstrip(".")
        raise ConsiliumError(
            f"The file {path} is not a model of this project ({said:.400}). Give the "
            "model.safetensors of a finished run."
        ) from error


def personal_sites(path: Path | str) -> list[str]:
    """The sites that have tensors of their own in a model file; none for a global model.

    Raises:
        ConsiliumError: the file is not a model.
    """
    with _opened(path) as file:
        return sorted({k.split(SEPARATOR)[0] for k in file.keys() if SEPARATOR in k})  # noqa: SIM118


def load_model(path: Path | str, site: str | None = None) -> nn.Module:
    """Build the network of a file and fill in its weights.

    It is in evaluation mode, and in channels last as it was trained, so that it predicts the same.

    Args:
        path: a file written by :func:`save_model`.
        site: whose model it is, where sites have tensors of their own.

    Raises:
        ConsiliumError: sites have models of their own, and ``site`` is none of them; or the file is
            not a model, holds other tensors than the network that it describes, or was changed
            after it was written. Files of older versions have no digest to see the last by.
    """
    header = read_header(path)
    sites = personal_sites(path)
    if sites and site not in sites:
        raise ConsiliumError(
            f"The model {path} is personalised: every site has its own, and {site!r} is not one "
            f"of them. Name one of {', '.join(sites)}."
        )
    own = f"{site}{SEPARATOR}"
    with _opened(path) as file:
        names = list(file.keys())
        where = {name: name for name in names if SEPARATOR not in name}
        where |= {name.removeprefix(own): name for name in names if name.startswith(own)}
        shapes = {name: tuple(file.get_slice(stored).get_shape()) for name, stored in where.items()}
        _refuse_other_network(header, shapes)
        _refuse_damaged(path, file)
        tensors = {name: file.get_tensor(stored) for name, stored in where.items()}
    model = header.build(seed=0)
    model.load_state_dict(tensors)
    return in_channels_last(model.eval())


def _refuse_other_network(header: ModelHeader, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compare a file's tensors with those of the network that it describes, which is not built yet.

    So the network takes no more memory than the file holds.

    Raises:
        ValueError: they differ, or there is no such network.
    """
    with torch.device("meta"):
        wanted = {n: tuple(t.shape) for n, t in header.build(seed=0).state_dict().items()}
    differing = sorted(
        name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name)
    )
    if differing:
        name = differing[0]
        raise ValueError(
            f"{len(differing)} of its tensors are not those of the network that it describes, for "
            f"example {name:.80}: {shapes.get(name)} instead of {wanted.get(name)}"
        )


def _refuse_damaged(path: Path | str, file: Any) -> None:
    """Refuse a file that does not hold what was written.

    Args:
        path: of the file, for the message.
        file: the same, open.

    Raises:
        ConsiliumError: its digest is of other tensors, or of another header.
    """
    told = json.loads(file.metadata()["consilium"])
    stated = told.pop(DIGEST, None)
    held = ((name, file.get_tensor(name)) for name in sorted(file.keys()))
    if stated is not None and stated != _digest(json.dumps(told), held):
        raise ConsiliumError(
            f"The model {path} was changed or damaged after it was written: its weights and its "
            "description are not those that its digest is of. Copy it again from where it came "
            "from, or run the experiment again."
        )


def _digest(text: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The SHA-256 of a header and of tensors, with their names, types and shapes, in hexadecimal.

    Args:
        text: the header, without a digest.
        tensors: all of the file, by name, in the order of names.
    """
    digest = sha256(text.encode())
    for name, tensor in tensors:
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
