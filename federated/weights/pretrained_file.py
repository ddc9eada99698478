"""Tensors from a file of weights; nothing that could run code is read."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from federated.errors import ConsiliumError, why_unreadable
from federated.weights.bounded_file import open_tensors

# Where published checkpoints keep their tensors.
INSIDE = ("state_dict", "model_state_dict", "model", "weights")
PREFIX = "module."  # of torch's DataParallel


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, or of a ``torch.save`` of plain tensors.

    No tensor takes more memory than the file has bytes.

    Raises:
        ConsiliumError: there is no such file, it is damaged, or it is a pickle that holds more than
            tensors, or one that asks for more memory than it has bytes.
    """
    if not path.is_file():
        raise ConsiliumError(
            f"There is no file of weights {path}. Correct model.init, or set it to random; a "
            "backbone of params.yaml is made by `consilium pretrain NAME`."
        )
    try:
        if path.suffix == ".safetensors":
            with open_tensors(path, "pt") as file:
                content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            _refuse_compressed(path)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ConsiliumError(
            f"The file {path} is refused: it is a pickle that holds more than plain tensors, and "
            "reading it could run code. Load it where you trust it, and save its state_dict alone "
            "with safetensors.torch.save_file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as weights: it is damaged, or neither safetensors nor "
            f"a torch checkpoint ({why_unreadable(error)})."
        ) from error
    tensors = _inside(content)
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if not tensors or others:
        what = f"{others[0]!r} is no tensor" if others else "it holds no tensor"
        raise ConsiliumError(
            f"The file {path} is refused: {what}. Give a state_dict, that is, tensors by name."
        )
    for name, tensor in tensors.items():
        _refuse_spread(path, name, tensor)
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    return dict(tensors)


def _refuse_compressed(path: Path) -> None:
    """Refuse a torch checkpoint that unpacks to more than its size; torch itself never compresses.

    Raises:
        ConsiliumError: it does; the message says how much memory it would take.
        ValueError: it is a damaged archive.
    """
    if not zipfile.is_zipfile(path):  # the older form has no archive
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from error
    if unpacked > path.stat().st_size:
        raise ConsiliumError(
            f"The file {path} is refused: of its {path.stat().st_size} bytes it would make "
            f"{unpacked}, and torch.save compresses nothing. Load it where you trust it, and save "
            "it again with torch.save."
        )


def _refuse_spread(path: Path, name: str, tensor: Tensor) -> None:
    """Refuse a tensor with more values than the file has of it.

    Raises:
        ConsiliumError: it has more; the message says which tensor it is.
    """
    if tensor.is_sparse or tensor.is_quantized or tensor.device.type != "cpu":
        raise ConsiliumError(
            f"The file {path} is refused: {name:.80} is not a plain tensor of numbers. Give a "
            "state_dict of dense tensors."
        )
    asked, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if asked > held:
        raise ConsiliumError(
            f"The file {path} is refused: its tensor {name:.80} of {tuple(tensor.shape)} asks for "
            f"{asked} bytes, of which the file holds {held}. Save it again as contiguous tensors."
        )


def _inside(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for key in INSIDE:
        if isinstance(content.get(key), Mapping):
            return {str(name): value for name, value in content[key].items()}
    return {str(name): value for name, value in content.items()}
