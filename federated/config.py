"""params.yaml as typed, validated, frozen values; the only reader of that file.

An experiment is ``defaults`` overlaid by its own entry under ``experiments`` and by what is set on
the command line. Where an overlay changes the ``name`` of a section such as ``strategy``, the
other keys of that section start afresh, because they belong to the other implementation.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from federated.compression import AnyCompression
from federated.config_errors import closest, explain
from federated.data.medmnist import DATASETS
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.privacy import AnyPrivacy
from federated.protection import AnyProtection
from federated.settings import Settings
from federated.strategies import AnyStrategy
from models.norm import Norm

# Sections whose ``name`` picks an implementation with keys of its own.
CHOICES = ("strategy", "privacy", "compression", "protection", "runner")


class DataSettings(Settings):
    """Which images, and where they come from."""

    dataset: str = "organmnist3d"
    source: Literal["medmnist", "files", "phantom", "auto"] = "medmnist"
    root: Path = Path("data")
    size: Literal[28, 64] = 28
    phantom_seed: int = Field(default=0, ge=0)


class SitesSettings(Settings):
    """How cases are dealt to simulated sites."""

    count: int = Field(default=10, ge=1, le=1000)
    partition: Literal["iid", "dirichlet", "pathological", "quantity"] = "dirichlet"
    beta: float = Field(default=0.5, gt=0)
    classes_per_site: int = Field(default=2, ge=1)
    min_cases: int = Field(default=10, ge=1)
    participation: float = Field(default=1.0, gt=0, le=1)
    scanner_shift: bool = False


class ValidationSettings(Settings):
    """What is checked of a site's data, and what happens to a site that fails."""

    on_failure: Literal["abort", "exclude-site"] = "abort"
    min_cases_per_class: int = Field(default=1, ge=1)


class ModelSettings(Settings):
    """The network."""

    name: Literal["small_cnn", "resnet3d"] = "small_cnn"
    norm: Norm = "group"
    init: Literal["random"] = "random"


class TrainingSettings(Settings):
    """The local loop at a site."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=3e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=32, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    augment: Literal["none", "flips"] = "flips"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class SelectionSettings(Settings):
    """By which metric a new model version is compared with the champion."""

    metric: Literal["val/auc", "val/accuracy", "val/balanced_accuracy", "val/loss"] = "val/auc"


class Serial(Settings):
    """Everything in the process of the flow, one site after another."""

    name: Literal["serial"] = "serial"


class Processes(Settings):
    """A pool of worker processes on this machine, one torch thread each."""

    name: Literal["processes"] = "processes"
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class Dask(Settings):
    """Workers of a running Dask cluster that share this folder; needs the extra ``dask``."""

    name: Literal["dask"] = "dask"
    address: str


class Experiment(Settings):
    """One resolved experiment."""

    name: str
    seed: int = Field(default=0, ge=0, lt=2**31)
    rounds: int = Field(default=20, ge=1)
    data: DataSettings = DataSettings()
    sites: SitesSettings = SitesSettings()
    validation: ValidationSettings = Field(default=ValidationSettings(), alias="validate")
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    selection: SelectionSettings = SelectionSettings()
    strategy: AnyStrategy
    privacy: AnyPrivacy
    compression: AnyCompression
    protection: AnyProtection
    runner: Annotated[Serial | Processes | Dask, Field(discriminator="name")] = Processes()

    def to_json(self) -> dict[str, Any]:
        """The resolved experiment as plain values, readable by :func:`read_experiment`."""
        return self.model_dump(mode="json", by_alias=True)


def load_experiment(
    name: str, overrides: Iterable[str] = (), params: Path = Path("params.yaml")
) -> Experiment:
    """Resolve an experiment of params.yaml with ``section.key=value`` overrides.

    Raises:
        ConsiliumError: no such file or experiment, an unknown key, an impossible value.
    """
    document = _read_params(params)
    experiments = document.get("experiments") or {}
    if name not in experiments:
        raise ConsiliumError(
            f"There is no experiment {name!r} in {params}.{closest(name, experiments)} "
            f"Known experiments: {', '.join(experiments)}."
        )
    value = _overlay(document.get("defaults") or {}, experiments[name] or {})
    value = _overlay(value, parse_overrides(overrides))
    return resolve(name, value, str(params))


def experiment_names(params: Path = Path("params.yaml")) -> list[str]:
    """The names of all experiments in params.yaml."""
    return list(_read_params(params).get("experiments") or {})


def resolve(name: str, value: Mapping[str, Any], where: str) -> Experiment:
    """Check plain values and freeze them as an :class:`Experiment`."""
    try:
        experiment = Experiment.model_validate({"name": name, **value})
    except ValidationError as error:
        schema = Experiment.model_json_schema(by_alias=True)
        message = explain(error, name=name, where=where, schema=schema, choices=CHOICES)
        raise ConsiliumError(message) from error
    if experiment.data.dataset not in DATASETS:
        raise ConsiliumError(
            f"In experiment {name} of {where}, data.dataset={experiment.data.dataset!r} is not "
            f"known.{closest(experiment.data.dataset, DATASETS)} Known data sets: "
            f"{', '.join(DATASETS)}."
        )
    if experiment.model.name == "resnet3d" and not experiment.data.dataset.endswith("3d"):
        raise ConsiliumError(
            f"In experiment {name} of {where}, model.name='resnet3d' takes volumes, but "
            f"data.dataset={experiment.data.dataset!r} holds 2D images. Use model.name=small_cnn."
        )
    return experiment


def read_experiment(path: Path) -> Experiment:
    """Read a resolved experiment from a run's folder."""
    value = read_json(path)
    return resolve(value.pop("name"), value, str(path))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Nested values from ``section.key=value`` items; values are read as YAML.

    Raises:
        ConsiliumError: an item without ``=`` or with an empty key.
    """
    result: dict[str, Any] = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise ConsiliumError(
                f"The setting {item!r} is not of the form section.key=value, "
                "for example strategy.mu=0.1."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConsiliumError(f"The value of the setting {item!r} is not YAML.") from error
        if isinstance(value, str):
            value = _number_or_text(value)
        node = result
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise ConsiliumError(f"The setting {item!r} contradicts an earlier one.")
            node = child
        node[parts[-1]] = value
    return result


def _number_or_text(text: str) -> float | str:
    """YAML 1.1 reads 1e-3 as text, because it has no point; a person means a number."""
    try:
        return float(text)
    except ValueError:
        return text


def _read_params(params: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(params.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConsiliumError(
            f"There is no {params} in {Path.cwd()}. Run consilium in the project's folder, or name "
            "the file with --params."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConsiliumError(f"The file {params} cannot be read as YAML: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("experiments"), dict):
        raise ConsiliumError(
            f"The file {params} has no `experiments:` section. It needs `defaults:` and "
            "`experiments:`, as README.md shows."
        )
    return document


def _overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(top, Mapping):
        raise ConsiliumError(f"An experiment is a mapping of sections, not {top!r}.")
    result = dict(base)
    for key, value in top.items():
        below = base.get(key)
        if not isinstance(value, Mapping) or not isinstance(below, Mapping):
            result[key] = value
        elif key in CHOICES and "name" in value and value["name"] != below.get("name"):
            result[key] = dict(value)
        else:
            result[key] = {**below, **value}
    return result
