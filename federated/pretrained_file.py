"""Tensors from a file of weights; nothing that could run code is read."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from federated.errors import ConsiliumError

# Where published checkpoints keep their tensors.
INSIDE = ("state_dict", "model_state_dict", "model", "weights")
PREFIX = "module."  # of torch's DataParallel


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Named tensors of a safetensors file, or of a ``torch.save`` of plain tensors.

    Raises:
        ConsiliumError: no such file, damaged, or a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise ConsiliumError(
            f"There is no file of weights {path}. Correct model.init, or set it to random; a "
            "backbone of params.yaml is made by `consilium pretrain NAME`."
        )
    try:
        content = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except UnpicklingError as error:
        raise ConsiliumError(
            f"The file {path} is refused: it is a pickle that holds more than plain tensors, and "
            "reading it could run code. Load it where you trust it, and save its state_dict alone "
            "with safetensors.torch.save_file."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ConsiliumError(
            f"The file {path} cannot be read as weights: it is damaged, or neither safetensors nor "
            f"a torch checkpoint ({str(error).splitlines()[0] if str(error) else error!r})."
        ) from error
    tensors = _inside(content)
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if not tensors or others:
        what = f"{others[0]!r} is no tensor" if others else "it holds no tensor"
        raise ConsiliumError(
            f"The file {path} is refused: {what}. Give a state_dict, that is, tensors by name."
        )
    if all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    return dict(tensors)


def _inside(content: Any) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        return {}
    for key in INSIDE:
        if isinstance(content.get(key), Mapping):
            return {str(name): value for name, value in content[key].items()}
    return {str(name): value for name, value in content.items()}
