"""Which items of ``--set`` make one experiment of another: the command that makes a run again."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from federated.configuration.experiment import Experiment
from federated.configuration.params_file import CHOICES, as_override

# What is no setting of a person, and what changes no result.
BESIDE = frozenset({"name", "planning", "runner"})
# Read from the data set's own description.
READ = ("data", "described")


def overrides_between(
    base: Mapping[str, Any],
    wanted: Mapping[str, Any],
    stated: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """The ``section.key=value`` items that make ``wanted`` of ``base``, both resolved experiments.

    The runner is left out: every one gives the same weights.

    Args:
        base: the experiment as params.yaml has it, of ``Experiment.to_json``.
        wanted: the one to be made, of the same.
        stated: of each section of ``wanted`` what is not a default there, by which another
            implementation is named more shortly; everything where it is left out.
    """
    items: list[str] = []
    unsaid = {
        section: Experiment.model_fields[section].default
        for section in base.keys() - wanted.keys() - BESIDE
        if section in Experiment.model_fields
    }
    usual = {
        section: default.model_dump(mode="json", by_alias=True)
        for section, default in unsaid.items()
        if isinstance(default, BaseModel)
    }
    for section, found in {**wanted, **usual}.items():
        value = found
        if section in BESIDE:
            continue
        below = base.get(section)
        if isinstance(value, Mapping):
            own = dict(below) if isinstance(below, Mapping) else {}
            # Settings of another implementation start afresh.
            if section in CHOICES and own.get("name") != value.get("name"):
                own = {}
                if stated is not None:
                    value = {"name": value["name"], **stated.get(section, {})}
            items += _differences((section,), own, value)
        elif value != below:
            items.append(as_override(section, value))
    return items


def _differences(
    path: tuple[str, ...], base: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in wanted.items():
        own = base.get(key)
        if (*path, key) == READ:
            continue
        if isinstance(value, Mapping) and isinstance(own, Mapping):
            yield from _differences((*path, key), own, value)
        elif own is None and isinstance(value, Mapping) and value and all(map(_is_key, value)):
            yield from _differences((*path, key), {}, value)
        elif key not in base or own != value:
            yield as_override(".".join((*path, key)), value)
    for key in base.keys() - wanted.keys():
        if (*path, key) != READ:
            yield as_override(".".join((*path, key)), _unsaid(path, key))


def _unsaid(path: tuple[str, ...], key: str) -> Any:
    """What a setting is that a resolved experiment does not have written out."""
    model: Any = Experiment
    for each in path:
        field = model.model_fields.get(each)
        model = field.annotation if field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    return fields[key].default if key in fields else None


def _is_key(key: object) -> bool:
    """Whether a part of an override can name it."""
    return isinstance(key, str) and key.isidentifier()
