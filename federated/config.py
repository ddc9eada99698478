"""params.yaml as typed, validated, frozen values; the only reader of that file.

An experiment is ``defaults`` overlaid by its own entry under ``experiments`` and by what is set on
the command line.
"""

from collections.abc import Iterable, Mapping
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from federated.augmentation import Augment, Sampling
from federated.combinations import refuse
from federated.compression import AnyCompression
from federated.config_errors import closest, explain
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.params_file import CHOICES, overlay, parse_overrides, read_params
from federated.privacy import AnyPrivacy
from federated.protection import AnyProtection
from federated.settings import Settings
from federated.strategies import AnyStrategy
from models.convolution import Convolution
from models.norm import Norm

# Before the name of a backbone, as an experiment that can be run.
PRETRAIN = "pretrain-"


class DataSettings(Settings):
    """Which images, and where they come from."""

    dataset: str = "organmnist3d"
    source: Literal["medmnist", "files", "phantom", "auto"] = "medmnist"
    root: Path = Path("data")
    # Of a MedMNIST set; those of a folder have their own.
    size: Literal[28, 64] = 28
    phantom_seed: int = Field(default=0, ge=0)


class SitesSettings(Settings):
    """How cases are dealt to simulated sites, and how these take part.

    A site that fails in a round, or refuses to send what it trained, stops the run or, with
    ``on_dropout: continue``, is left out of that round's mean. ``natural`` sites are those that the
    data name. ``overlays`` keeps pictures of test cases with their masks in the run's folder and in
    MLflow: images of patients leave the site for it.
    """

    count: int = Field(default=10, ge=1, le=1000)
    partition: Literal["iid", "dirichlet", "pathological", "quantity", "natural"] = "dirichlet"
    beta: float = Field(default=0.5, gt=0)
    classes_per_site: int = Field(default=2, ge=1)
    min_cases: int = Field(default=10, ge=1)
    participation: float = Field(default=1.0, gt=0, le=1)
    on_dropout: Literal["abort", "continue"] = "abort"
    scanner_shift: bool = False
    overlays: bool = False

    @property
    def asked(self) -> int:
        """How many are asked in a round, where validation has excluded none."""
        return self.asked_of(self.count)

    def asked_of(self, sites: int) -> int:
        """How many of ``sites`` are asked in a round: the share of them, at least one."""
        return ceil(self.participation * sites)


class ValidationSettings(Settings):
    """What is checked of a site's data, and what happens where it fails.

    ``drop-case`` leaves out the cases that break a rule, and a site that fails all the same.
    ``outlier`` is how many robust standard deviations a volume's size or intensity may be from the
    rest of its site's.
    """

    on_failure: Literal["abort", "exclude-site", "drop-case"] = "abort"
    min_cases_per_class: int = Field(default=1, ge=1)
    outlier: float = Field(default=6.0, gt=0)


class ModelSettings(Settings):
    """The network, and what its weights start from.

    ``init`` is ``random`` or a file of pretrained weights. ``conv`` and ``stem`` are those of
    resnet3d: the kind of its convolutions, and the width of its first kernel in voxels;
    ``scale_norm`` is of dp_resnet: whether its residual sums are normalised once more. ``width``,
    the channels of the finest level, and ``deep_supervision`` are of unet.
    """

    name: Literal["small_cnn", "shallow_cnn", "resnet3d", "dp_resnet", "unet"] = "small_cnn"
    norm: Norm = "group"
    init: str = Field(default="random", min_length=1)
    conv: Convolution = "3d"
    stem: Literal[3, 7] = 3
    scale_norm: bool = False
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 16
    deep_supervision: bool = False


class TrainingSettings(Settings):
    """The local loop at a site.

    The backbone, which is all but the head, is frozen for ``freeze_rounds`` rounds and then
    trained with ``backbone_lr`` times the learning rate of the head. With ``trainable`` only these
    layers are: ``norm`` for all normalisation layers, ``head``, or others by the beginning of their
    tensors' names, as ``down.0``. In an epoch, each case that is too large for the network gives
    ``patches_per_case`` patches.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=3e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    batch_size: int = Field(default=32, ge=1)
    patches_per_case: int = Field(default=1, ge=1)
    local_epochs: int = Field(default=1, ge=1)
    augment: Augment = "flips"
    sampling: Sampling = "shuffle"
    class_weights: Literal["none", "balanced"] = "none"
    freeze_rounds: int = Field(default=0, ge=0)
    backbone_lr: float = Field(default=1.0, ge=0)
    trainable: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class SelectionSettings(Settings):
    """Which round's model a run keeps, when it stops early, and what makes a champion.

    Models are evaluated after ``every`` so many rounds, and after the last. ``keep`` is the best of
    these by ``metric`` or the last one. With ``patience`` a run ends where a model is not better
    than one of that many rounds before.
    """

    metric: Literal["val/auc", "val/accuracy", "val/balanced_accuracy", "val/loss", "val/dice"] = (
        "val/auc"
    )
    keep: Literal["best", "last"] = "best"
    every: int = Field(default=1, ge=1)
    patience: Annotated[int, Field(ge=1)] | None = None


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
    document = read_params(params)
    value = _experiment_values(document, name, params)
    return resolve(name, overlay(value, parse_overrides(overrides)), str(params))


def transfer_overrides(name: str, params: Path = Path("params.yaml")) -> list[str]:
    """The ``section.key=value`` items that let an experiment start from its backbone.

    They are those of its entry under ``transfer``, and ``model.init`` for the entry's
    ``backbone``, which is one of ``pretraining``.

    Raises:
        ConsiliumError: it has no entry, or one without a known backbone.
    """
    document = read_params(params)
    entry = dict((document.get("transfer") or {}).get(name) or {})
    known = document.get("pretraining") or {}
    backbone = entry.pop("backbone", None)
    if backbone not in known:
        raise ConsiliumError(
            f"Transfer learning of {name!r} needs an entry `{name}: {{backbone: NAME}}` under "
            f"`transfer:` in {params}, with NAME one of pretraining: {', '.join(known) or 'none'}."
        )
    return [f"model.init={backbone_path(str(backbone))}", *_items(entry)]


def variant_overrides(variant: str, params: Path = Path("params.yaml")) -> list[str]:
    """The ``section.key=value`` items of an entry under ``variants``.

    Raises:
        ConsiliumError: there is no such entry.
    """
    known = read_params(params).get("variants") or {}
    if variant not in known:
        raise ConsiliumError(
            f"There is no variant {variant!r} under `variants:` in {params}."
            f"{closest(variant, known)} Known: {', '.join(['tl', *known])}."
        )
    return _items(known[variant])


def _items(entry: Mapping[str, Any]) -> list[str]:
    return [
        f"{section}.{key}={value}"
        for section, values in entry.items()
        for key, value in values.items()
    ]


def backbone_path(backbone: str) -> Path:
    """Where a backbone of ``pretraining`` lies, relative to the project's folder."""
    return Path("data") / "pretrained" / backbone / "model.safetensors"


def _experiment_values(document: Mapping[str, Any], name: str, params: Path) -> dict[str, Any]:
    """An experiment over the defaults; ``pretrain-NAME`` is backbone NAME of ``pretraining``."""
    experiments = document["experiments"]
    defaults = document.get("defaults") or {}
    backbones = document.get("pretraining") or {}
    backbone = name.removeprefix(PRETRAIN)
    if name in experiments:
        return overlay(defaults, experiments[name] or {})
    if name.startswith(PRETRAIN) and backbone in backbones:
        entry = {"strategy": {"name": "central"}, **(backbones[backbone] or {})}
        source = entry.pop("experiment", None)
        if source in experiments:
            return overlay(overlay(defaults, experiments[source] or {}), entry)
        raise ConsiliumError(
            f"The backbone {backbone!r} under `pretraining:` in {params} needs `experiment:`, the "
            f"experiment whose data it is trained on, one of {', '.join(experiments)}; it has "
            f"{source!r}."
        )
    known = [*experiments, *(PRETRAIN + key for key in backbones)]
    raise ConsiliumError(
        f"There is no experiment {name!r} in {params}.{closest(name, known)} "
        f"Known experiments: {', '.join(known)}."
    )


def experiment_names(params: Path = Path("params.yaml")) -> list[str]:
    """The names of all experiments in params.yaml."""
    return list(read_params(params).get("experiments") or {})


def resolve(name: str, value: Mapping[str, Any], where: str) -> Experiment:
    """Check plain values and freeze them as an :class:`Experiment`."""
    try:
        experiment = Experiment.model_validate({"name": name, **value})
    except ValidationError as error:
        schema = Experiment.model_json_schema(by_alias=True)
        message = explain(error, name=name, where=where, schema=schema, choices=CHOICES)
        raise ConsiliumError(message) from error
    refuse(experiment, where)
    return experiment


def read_experiment(path: Path) -> Experiment:
    """Read a resolved experiment from a run's folder."""
    value = read_json(path)
    return resolve(value.pop("name"), value, str(path))
