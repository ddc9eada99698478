"""A model as a MONAI bundle: what describes it, and how MONAI runs it.

MONAI resolves ``@name`` and evaluates ``$expression`` in these files. What a data set says of
itself, such as the names of its classes, gets into them as text that begins with neither.
"""

import io
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from federated.data.dataset import TaskName
from federated.learning import TASKS
from federated.learning.segmentation import OVERLAP, WINDOWS_AT_ONCE
from federated.release.exported import sides, takes
from federated.weights.model_file import ModelHeader

METADATA, INFERENCE = "configs/metadata.json", "configs/inference.json"
WEIGHTS, TORCHSCRIPT = "models/model.pt", "models/model.ts"
SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
# What else than MONAI, torch and numpy the configuration needs.
NEEDED = ("consilium", "nibabel", "pytorch-ignite")


def state_file(model: nn.Module) -> bytes:
    """The weights as MONAI reads them: a state of torch's, which holds tensors alone."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getvalue()


def inert(text: str) -> str:
    """A text that MONAI takes for nothing but a text, wherever it stands in a configuration."""
    plain = " ".join(text.split())
    safe = plain.replace("@", "(at)").replace("%", " per cent").replace("#", " no. ")
    return safe if safe[:1].isalnum() else f"“{safe}”"


def escaped(text: str) -> str:
    """JSON as text in which nothing is a sign to MONAI; whoever reads the JSON finds it as it was.

    Signs stand in strings of the JSON alone, where each may be written by its number.
    """
    return "".join(f"\\u{ord(sign):04x}" if sign in "@#%$" else sign for sign in text)


def metadata(header: ModelHeader, name: str, number: str, limits: Sequence[str]) -> dict[str, Any]:
    """What ``configs/metadata.json`` says.

    Args:
        header: the model's.
        name: of the model in the registry.
        number: its version there.
        limits: sentences on what the model is not.
    """
    goal, shape = header.goal(), list(sides(header))
    outputs = {str(place): inert(label) for place, label in enumerate(header.class_names())}
    segments = header.family() is not None
    return {
        "schema": SCHEMA,
        "version": f"{number}.0.0",
        "changelog": {f"{number}.0.0": "released by Consilium"},
        "monai_version": version("monai"),
        "pytorch_version": _plain(version("torch")),
        "numpy_version": version("numpy"),
        "required_packages_version": _installed(),
        "supported_apps": {},
        "name": inert(f"{name}, version {number}"),
        "task": f"{goal} of images like those of {inert(header.dataset)}",
        "description": inert(f"A model for {TASKS[goal].goal}, trained by federated learning."),
        "authors": "see the model card",
        "copyright": "see LICENSE and the model card",
        "data_source": inert(header.data_source),
        "image_classes": takes(header),
        "label_classes": "see channel_def",
        "pred_classes": "see channel_def",
        "intended_use": " ".join(limits),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": header.channels,
                    "spatial_shape": shape,
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": segments,
                    "channel_def": {str(n): f"channel {n}" for n in range(header.channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image" if segments else "logits",
                    "format": "segmentation" if segments else "classes",
                    "num_channels": header.classes,
                    "spatial_shape": shape if segments else [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": segments,
                    "channel_def": outputs,
                }
            },
        },
    }


def _installed() -> Mapping[str, str]:
    from importlib.metadata import PackageNotFoundError

    found = {}
    for name in NEEDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "any"
    return found


def _plain(number: str) -> str:
    """A version without its local part, as ``+cpu``."""
    return number.partition("+")[0]


def inference(header: ModelHeader, name: str, number: str) -> dict[str, Any]:
    """What ``configs/inference.json`` says: of files in ``dataset_dir`` to those in ``output_dir``.

    Args:
        header: the model's.
        name: of the model in the registry.
        number: its version there.
    """
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/data'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "header": escaped(header.to_text()),
        "network_def": {
            "_target_": "federated.release.network.network_of",
            "header": "@header",
        },
        "network": "$@network_def.to(@device)",
        "datalist": "$[{'image': path} for path in sorted(glob.glob(@dataset_dir + '/*'))]",
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": "@dataset",
            "batch_size": 1,
            "shuffle": False,
            "num_workers": 0,
        },
        **(
            _segments(header, name, number)
            if header.family() is not None
            else _classifies(header.goal(), header)
        ),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": f"$@bundle_root + '/{WEIGHTS}'",
                "load_dict": {"model": "@network"},
            }
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _segments(header: ModelHeader, name: str, number: str) -> dict[str, Any]:
    transforms = "federated.release.bundle_transforms"
    return {
        "preprocessing": _compose({"_target_": f"{transforms}.PrepareCase", "header": "@header"}),
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(sides(header)),
            "sw_batch_size": WINDOWS_AT_ONCE,
            "overlap": OVERLAP,
            "mode": "gaussian",
        },
        "postprocessing": _compose(
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {
                "_target_": f"{transforms}.WriteMask",
                "header": "@header",
                "output_dir": "@output_dir",
                "name": inert(name),
                "version": number,
            },
        ),
    }


def _classifies(goal: TaskName, header: ModelHeader) -> dict[str, Any]:
    return {
        "preprocessing": _compose(
            # An array (channels, *spatial) of 0..255 in each file.
            {
                "_target_": "LoadImaged",
                "keys": "image",
                "reader": "NumpyReader",
                "image_only": False,
            },
            {
                "_target_": "ScaleIntensityRanged",
                "keys": "image",
                "a_min": 0.0,
                "a_max": 255.0,
                "b_min": 0.0,
                "b_max": 1.0,
            },
            {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32"},
        ),
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": _compose(
            _readout(goal, header),
            {
                "_target_": "SaveClassificationd",
                "keys": "pred",
                "meta_keys": "image_meta_dict",
                "output_dir": "@output_dir",
            },
        ),
    }


def _readout(goal: TaskName, header: ModelHeader) -> dict[str, Any]:
    target = header.target()
    if goal == "regression" and target is not None:
        numbers = (target.scale, target.centre, target.low, target.high)
        scale, centre, low, high = (repr(float(number)) for number in numbers)
        read = f"$lambda x: (x * {scale} + {centre}).clamp({low}, {high})"
        return {"_target_": "Lambdad", "keys": "pred", "func": read}
    kind = "sigmoid" if goal == "multilabel" else "softmax"
    return {"_target_": "Activationsd", "keys": "pred", kind: True}


def _compose(*transforms: Mapping[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(transforms)}


def as_json(value: Mapping[str, Any]) -> str:
    """A configuration as the text of its file."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
