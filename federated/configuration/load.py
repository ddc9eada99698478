"""params.yaml as typed, validated, frozen values; the only reader of that file.

An experiment is ``defaults`` overlaid by its own entry under ``experiments`` and by what is set on
the command line.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from federated.configuration.compatibility import refuse
from federated.configuration.description_file import find_description
from federated.configuration.experiment import Experiment
from federated.configuration.explain import closest, explain
from federated.configuration.params_file import (
    as_override,
    experiment_values,
    key_of,
    overlay,
    parse_overrides,
    read_params,
)
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json
from federated.settings.names import refuse_name
from federated.settings.sections import SitesSettings

# ``section.key=value`` items of ``--set``; or items by the option that sets them, such as
# ``--rounds``, the later ones over the earlier.
Overrides = Iterable[str] | Mapping[str, Iterable[str]]


def load_experiment(
    name: str,
    overrides: Overrides = (),
    params: Path = Path("params.yaml"),
    plans: bool = False,
) -> Experiment:
    """Resolve an experiment of params.yaml with ``section.key=value`` overrides.

    Args:
        name: the experiment's name.
        overrides: what is laid over it.
        params: the parameter file.
        plans: whether what is `auto` in the description of a data set is left to be planned by its
            sites, where there are several; otherwise it is taken from the headers of the images.

    Raises:
        ConsiliumError: there is no such file or experiment, or a key is unknown, or a value
            impossible. The message names what has set the value: an option or the file.
    """
    document = read_params(params)
    value = experiment_values(document, name, params)
    layers = overrides if isinstance(overrides, Mapping) else {"--set": overrides}
    items = [(item, option) for option, layer in layers.items() for item in layer]
    top = parse_overrides(item for item, _ in items)
    origins = {key_of(item): option for item, option in items}
    described, auto = _with_description(overlay(value, top), name, params, plans)
    return resolve(name, with_planning(described, name, params, auto), str(params), origins)


# Keys that may be `auto`, beside model.levels, which is so by default, as is data.landmarks with
# data.harmonise=nyul.
AUTO = (("data", "spacing"), ("data", "patch"), ("training", "batch_size"))


def with_planning(
    value: dict[str, Any], name: str, params: Path, described: Iterable[str] = ()
) -> dict[str, Any]:
    """The values without those that are `auto`, which ``planning.auto`` lists then.

    Args:
        value: the values of an experiment.
        name: the experiment's name.
        params: the parameter file, for the message.
        described: what else is to be planned, of the description of a data set.

    Raises:
        ConsiliumError: the values have a section ``planning`` of their own.
    """
    if "planning" in value:
        raise ConsiliumError(
            f"Experiment {name} of {params} cannot be used. `planning` is not a section to set: "
            "write `auto` in place of what is to be planned, as data.spacing=auto."
        )
    result, auto = dict(value), list(described)
    for section, key in AUTO:
        own = result.get(section)
        if isinstance(own, Mapping) and own.get(key) == "auto":
            result[section] = {k: v for k, v in own.items() if k != key}
            auto.append(f"{section}.{key}")
    data = result.get("data")
    if isinstance(data, Mapping) and (
        data.get("landmarks") == "auto"
        or (data.get("harmonise") == "nyul" and data.get("landmarks") is None)
    ):
        result["data"] = {k: v for k, v in data.items() if k != "landmarks"}
        auto.append("data.landmarks")
    model = result.get("model")
    network = model if isinstance(model, Mapping) else {}
    if network.get("name") == "nnunet" and network.get("levels", "auto") == "auto":
        auto.append("model.levels")
    return {**result, "planning": {"auto": auto}} if auto else result


def _with_description(
    value: dict[str, Any], name: str, params: Path, plans: bool
) -> tuple[dict[str, Any], list[str]]:
    """The values with what the data set's ``dataset.yaml`` says, where it has one.

    The second value says what of it is still to be planned, where ``plans`` allows that.

    Raises:
        ConsiliumError: it cannot be used; or the values have a description of their own.
    """
    data = value.get("data")
    if not isinstance(data, Mapping):
        return value, []
    if "described" in data:
        raise ConsiliumError(
            f"Experiment {name} of {params} cannot be used. data.described is not a key to set: "
            "what a data set is stands in the dataset.yaml of its folder. Change it there."
        )
    dataset, root = data.get("dataset"), data.get("root", "data")
    if not isinstance(dataset, str) or not isinstance(root, str | Path):
        return value, []  # which is refused with its key
    sites = value.get("sites")
    several = isinstance(sites, Mapping) and sites.get("count", SitesSettings().count) != 1
    described = find_description(dataset, Path(root), settles=not (plans and several))
    if described is None:
        return value, []
    auto: tuple[str, ...] = ()
    if not described.settled:
        from federated.planning.described import provisional

        described, auto = provisional(described)
    told = {**value, "data": {**data, "described": described.model_dump(mode="json")}}
    return told, [f"data.described.{key}" for key in auto]


def transfer_overrides(name: str, params: Path = Path("params.yaml")) -> list[str]:
    """The ``section.key=value`` items that let an experiment start from its backbone.

    They are those of its entry under ``transfer``, and ``model.init`` for the entry's ``backbone``,
    which is one of ``pretraining``.

    Raises:
        ConsiliumError: the experiment has no entry, or one without a known backbone.
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
        as_override(f"{section}.{key}", value)
        for section, values in entry.items()
        for key, value in values.items()
    ]


def backbone_path(backbone: str) -> Path:
    """The file of a backbone of ``pretraining``, relative to the project's folder."""
    return Path("data") / "pretrained" / backbone / "model.safetensors"


def resolve(
    name: str, value: Mapping[str, Any], where: str, origins: Mapping[str, str] | None = None
) -> Experiment:
    """Check plain values and freeze them as an :class:`Experiment`.

    Args:
        name: the experiment's name.
        value: its sections.
        where: where they come from, for messages.
        origins: by key, what else has set a value, as ``--rounds``.

    Raises:
        ConsiliumError: a key is unknown, a value impossible, settings do not go together, or no
            folder can have the name.
    """
    refuse_name(name, "an experiment's name", f" (in {where})")
    origins = origins or {}
    if origins:
        where = f"{where} with {' and '.join(dict.fromkeys(origins.values()))}"
    if "name" in value:
        raise ConsiliumError(
            f"Experiment {name} of {where} cannot be used. `name` is not a known key: an "
            "experiment has the name that it stands under in `experiments:`. Leave it out."
        )
    try:
        experiment = Experiment.model_validate({"name": name, **value})
    except ValidationError as error:
        said = explain(error, Experiment.model_json_schema(by_alias=True), origins)
        raise ConsiliumError(f"Experiment {name} of {where} cannot be used. {said}") from error
    refuse(experiment, where)
    return experiment


def read_experiment(path: Path) -> Experiment:
    """Read a resolved experiment from a run's folder.

    Raises:
        ConsiliumError: the file is missing, damaged, or not an experiment.
    """
    try:
        value = dict(read_json(path))
        name = str(value.pop("name"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"The configuration {path} cannot be read: {why_unreadable(error)}. Put the file back, "
            "or start a new run."
        ) from error
    return resolve(name, value, str(path))
