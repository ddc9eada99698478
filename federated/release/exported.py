"""A network as ONNX and TorchScript, and how far their outputs are from torch's own.

Both are made by tracing the network once: torch's newer exporter, of ``torch.export``, has no
adaptive pooling in three dimensions, and takes ten times as long. A traced network is right for the
sizes that it is compared at, and these are others than the one that it was traced with.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from math import ceil, prod
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor, nn

from federated.data.folders.families.base import MULTIPLE
from federated.errors import ConsiliumError
from federated.learning import TASKS
from federated.randomness import numpy_generator
from federated.settings.networks import NNUNet
from federated.weights.model_file import ModelHeader

INPUT, OUTPUT = "images", "outputs"
# Of what is predicted, a difference of so much is rounding; of the network's outputs before that,
# such as logits, a difference of so much or of this part of them.
TOLERANCE = 1e-4
OPSET = 18
BATCH = "batch"
AXES = ("right", "anterior", "superior")
# The files of a TorchScript archive that say which line of which file each operation is from.
DEBUG = ".debug_pkl"


@dataclass(frozen=True)
class Comparison:
    """How an exported network compares with torch's.

    Attributes:
        inputs: the shapes ``(n, channels, *spatial)`` of the inputs that both were given.
        predicted: the largest absolute difference of a probability, or of a standardised number.
        largest: the largest absolute difference of an output, such as a logit.
        outputs: the largest absolute output of torch's.
        equal: whether all differences are within :data:`TOLERANCE`.
    """

    inputs: Sequence[tuple[int, ...]]
    predicted: float
    largest: float
    outputs: float
    equal: bool


def sides(header: ModelHeader) -> tuple[int, ...]:
    """The sides of an image that the network sees at once, ``(*spatial)``."""
    family = header.family()
    return header.image_shape()[1:] if family is None else family.shape


def multiples(header: ModelHeader) -> tuple[int, ...]:
    """For each axis, what the sides of a segmented image are multiples of."""
    network = header.network
    if isinstance(network, NNUNet) and network.levels != "auto":
        return tuple(prod(level.stride[axis] for level in network.levels) for axis in _axes(header))
    return (MULTIPLE,) * header.dims


def _axes(header: ModelHeader) -> range:
    return range(header.dims)


def trial_inputs(header: ModelHeader) -> list[Tensor]:
    """Inputs ``(n, channels, *spatial)`` float32 to compare at, the first for tracing.

    There is more than one image, one alone, and in segmentation a larger one and a smaller one.
    They are drawn: of classes from [0, 1], and otherwise with zero mean and unit variance, as
    images are that a network is given.
    """
    own, segments = sides(header), header.family() is not None
    shapes = [(2, *own), (1, *own)]
    if segments:
        steps = multiples(header)
        larger = tuple(side + step for side, step in zip(own, steps, strict=True))
        smaller = tuple(max(side - step, step) for side, step in zip(own, steps, strict=True))
        shapes += [(1, *larger), (3, *smaller)]
    rng = numpy_generator(0, purpose="release")
    draw = rng.normal if segments else rng.uniform
    return [
        torch.from_numpy(draw(size=(batch, header.channels, *spatial)).astype(np.float32))
        for batch, *spatial in shapes
    ]


def to_onnx(model: nn.Module, header: ModelHeader) -> bytes:
    """The network as ONNX: float32 :data:`INPUT` to float32 :data:`OUTPUT`.

    The number of images may vary, and in segmentation the sides of an image.

    Args:
        model: the network, on the CPU.
        header: its header.

    Raises:
        ConsiliumError: the network cannot be exported, or the extra ``release`` is not installed.
    """
    require("onnx")
    axes = {0: BATCH}
    if header.family() is not None:
        axes |= {2 + axis: AXES[axis] for axis in _axes(header)}
    file = io.BytesIO()
    with _tracing("ONNX"):
        torch.onnx.export(
            exportable(model).eval(),
            (trial_inputs(header)[0],),
            file,  # type: ignore[arg-type]  # this exporter takes a file too
            dynamo=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes if header.family() is not None else {0: BATCH}},
            opset_version=OPSET,
        )
    return _with_words(file.getvalue(), header)


def _with_words(content: bytes, header: ModelHeader) -> bytes:
    """An ONNX network that says itself what it takes and gives."""
    import onnx

    network = onnx.load_from_string(content)
    calibration = header.calibration
    onnx.helper.set_model_props(
        network,
        {
            INPUT: takes(header),
            OUTPUT: gives(header),
            "classes": "\n".join(header.class_names()),
            "temperature": repr(1.0 if calibration is None else calibration.temperature),
        },
    )
    return bytes(network.SerializeToString())


def takes(header: ModelHeader) -> str:
    """What the numbers are that the network itself takes, in a few words."""
    if header.family() is None:
        return "values of 0 to 1, which are intensities of 0 to 255 divided by 255"
    return "intensities as federated.release.bundle_transforms.PrepareCase brings them"


def gives(header: ModelHeader) -> str:
    """What the numbers are that the network itself gives, in a few words."""
    goal = header.goal()
    if goal == "regression":
        return "a standardised number for each image"
    where = "each class and voxel" if goal == "segmentation" else "each class"
    kind = "a sigmoid" if goal == "multilabel" else "a softmax over the classes"
    return f"a logit for {where}; probabilities are {kind} of them"


class MeansByAxis(nn.Module):
    """Adaptive average pooling, as a product with a matrix along each axis.

    ONNX has it only where the pooled parts have one size and share no voxel.
    """

    def __init__(self, dims: int, side: int) -> None:
        super().__init__()
        self._dims, self._side = dims, side

    def forward(self, images: Tensor) -> Tensor:
        """The means ``(n, channels, side, …)`` of images ``(n, channels, *spatial)``."""
        for axis in range(2, 2 + self._dims):
            weights = _parts(int(images.shape[axis]), self._side)
            images = (images.transpose(axis, self._dims + 1) @ weights).transpose(
                axis, self._dims + 1
            )
        return images


def _parts(length: int, parts: int) -> Tensor:
    """The weights ``(length, parts)`` by which each part is a mean, as torch bounds parts."""
    weights = np.zeros((length, parts), np.float32)
    for part in range(parts):
        start, stop = part * length // parts, ceil((part + 1) * length / parts)
        weights[start:stop, part] = 1 / (stop - start)
    return torch.from_numpy(weights)


def exportable(model: nn.Module) -> nn.Module:
    """A copy of a network whose adaptive pooling is :class:`MeansByAxis`, with the same weights."""
    copy = deepcopy(model)
    pools: dict[type[nn.Module], int] = {nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3}
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            # To a single number it is a mean, which ONNX has.
            side = getattr(child, "output_size", 1)
            if (dims := pools.get(type(child))) and isinstance(side, int) and side > 1:
                setattr(parent, name, MeansByAxis(dims, side))
    return copy


def to_torchscript(model: nn.Module, header: ModelHeader, metadata: str) -> bytes:
    """The network as TorchScript, which torch and MONAI read without this project.

    It does not say from which files of this machine it was traced.

    Args:
        model: the network, on the CPU.
        header: its header.
        metadata: JSON that is kept beside it, as MONAI expects.

    Raises:
        ConsiliumError: the network cannot be traced.
    """
    file = io.BytesIO()
    with _tracing("TorchScript"), torch.no_grad():
        traced = torch.jit.trace(model.eval(), trial_inputs(header)[0])  # type: ignore[no-untyped-call]
        torch.jit.save(traced, file, _extra_files={"metadata.json": metadata.encode()})
    return _without_sources(file.getvalue())


def _without_sources(content: bytes) -> bytes:
    """A TorchScript archive without the places in source files that torch keeps for debugging."""
    kept = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as old, ZipFile(kept, "w") as new:
        for each in old.infolist():
            if not each.filename.endswith(DEBUG):
                # Without the time of day, too.
                new.writestr(ZipInfo(each.filename), old.read(each))
    return kept.getvalue()


@contextmanager
def _tracing(form: str) -> Iterator[None]:
    """Leave out what torch says of tracing, and say what a network fails at in one paragraph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except Exception as error:
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise ConsiliumError(
                f"This network cannot be written as {form} ({said:.200})."
            ) from error


def compare_onnx(
    model: nn.Module, header: ModelHeader, content: bytes, inputs: Sequence[Tensor]
) -> Comparison:
    """How an ONNX network, run by onnxruntime on the CPU, compares with torch's.

    Args:
        model: torch's, in evaluation mode.
        header: its header.
        content: the ONNX file.
        inputs: each ``(n, channels, *spatial)`` float32.

    Raises:
        ConsiliumError: onnxruntime does not run the network, or the extra ``release`` is not
            installed.
    """
    return _compare(model, header, onnx_session(content), inputs)


def onnx_session(content: bytes) -> Callable[[Tensor], Tensor]:
    """An ONNX network as a function of images ``(n, channels, *spatial)``, on the CPU.

    Raises:
        ConsiliumError: onnxruntime does not run the network, or the extra ``release`` is not
            installed.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        said = str(error).splitlines()[0]
        raise ConsiliumError(f"onnxruntime does not run this network ({said:.200}).") from error
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0])


def compare_torchscript(
    model: nn.Module, header: ModelHeader, content: bytes, inputs: Sequence[Tensor]
) -> Comparison:
    """How a TorchScript network compares with torch's.

    Args:
        model: torch's, in evaluation mode.
        header: its header.
        content: the TorchScript file.
        inputs: each ``(n, channels, *spatial)`` float32.
    """
    with _tracing("TorchScript"):
        traced = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return _compare(model, header, traced, inputs)


def _compare(
    model: nn.Module,
    header: ModelHeader,
    other: Callable[[Tensor], Tensor],
    inputs: Sequence[Tensor],
) -> Comparison:
    predicted, largest, outputs, equal = 0.0, 0.0, 0.0, True
    with torch.inference_mode():
        for images in inputs:
            wanted, found = model(images), other(images)
            if wanted.shape != found.shape:
                raise ConsiliumError(
                    f"For images {tuple(images.shape)} its outputs are {tuple(found.shape)}, and "
                    f"torch's {tuple(wanted.shape)}."
                )
            equal &= torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE)
            largest = max(largest, _largest(found - wanted))
            read = _predicted(header, found) - _predicted(header, wanted)
            predicted = max(predicted, _largest(read))
            outputs = max(outputs, _largest(wanted))
    shapes = [tuple(images.shape) for images in inputs]
    return Comparison(shapes, predicted, largest, outputs, equal and predicted <= TOLERANCE)


def _predicted(header: ModelHeader, outputs: Tensor) -> Tensor:
    """What is predicted by outputs; a number stays standardised."""
    goal, wide = header.goal(), outputs.double()
    return wide if goal == "regression" else TASKS[goal].readout(wide, None)


def _largest(values: Tensor) -> float:
    """The largest absolute value; infinity where one is not a number."""
    return float(values.abs().nan_to_num(nan=np.inf).max())


def require(*packages: str) -> None:
    """Refuse to go on where a package of the extra ``release`` is not installed.

    Raises:
        ConsiliumError: one is not.
    """
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise ConsiliumError(
            f"A dossier needs the package {' and '.join(missing)}, which is not installed here. "
            "Install the extra `release` of consilium, as `make setup` does."
        )
