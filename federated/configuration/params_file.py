"""params.yaml as plain values: reading it, overlaying sections, ``section.key=value`` items."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from federated.configuration.explain import closest
from federated.configuration.yaml_text import UnclearYamlError, parse_yaml
from federated.errors import ConsiliumError, why_unreadable

# Put before the name of a backbone, this makes the name of an experiment that can be run.
PRETRAIN = "pretrain-"
NAME = re.compile(r"\w[\w.-]*")
# Sections whose ``name`` picks an implementation with keys of its own.
CHOICES = ("strategy", "privacy", "compression", "protection", "runner")


def rounds_items(rounds: int | None) -> list[str]:
    """The ``section.key=value`` items of ``--rounds``: one, or none where it is left out."""
    return [] if rounds is None else [f"rounds={rounds}"]


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Nested values from ``section.key=value`` items, whose values are read as YAML.

    Raises:
        ConsiliumError: an item has no ``=`` or an empty key, its value is not clear YAML, or it
            contradicts an earlier item.
    """
    result: dict[str, Any] = {}
    for item in overrides:
        _, equals, text = item.partition("=")
        parts = key_of(item).split(".")
        if not equals or not all(parts):
            raise ConsiliumError(
                f"The setting {item!r} is not of the form section.key=value, "
                "for example strategy.mu=0.1."
            )
        try:
            value = parse_yaml(text)
        except UnclearYamlError as error:
            raise ConsiliumError(
                f"The value of the setting {item!r} is not YAML that is clear: {error}. Put text "
                "with signs that mean something in YAML in quotes."
            ) from error
        node = result
        for part in parts[:-1]:
            child = node.setdefault(part, {})
            if not isinstance(child, dict):
                raise ConsiliumError(f"The setting {item!r} contradicts an earlier one.")
            node = child
        node[parts[-1]] = value
    return result


def key_of(item: str) -> str:
    """The key of a ``section.key=value`` item."""
    return ".".join(part.strip() for part in item.partition("=")[0].split("."))


def as_override(key: str, value: Any) -> str:
    """A ``section.key=value`` item that :func:`parse_overrides` reads as the same value."""
    text = str(value)
    try:
        same = parse_yaml(text) == value and type(parse_yaml(text)) is type(value)
    except UnclearYamlError:
        same = False
    return f"{key}={text if same else json.dumps(value, default=str)}"


def read_params(params: Path) -> dict[str, Any]:
    """The parameter file as plain values, with an ``experiments`` mapping.

    Raises:
        ConsiliumError: there is no such file, it cannot be read or is not YAML, it has no
            experiments, or one has a name that cannot be one.
    """
    try:
        document = parse_yaml(params.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConsiliumError(
            f"There is no {params} in {Path.cwd()}. Run consilium in the project's folder, or name "
            "the file with --params."
        ) from error
    except UnclearYamlError as error:
        raise ConsiliumError(
            f"The file {params} cannot be read as YAML: {error}. Correct it there, or name another "
            "file with --params."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConsiliumError(
            f"The parameter file {params} cannot be read: {why_unreadable(error)}. Name a file of "
            "YAML that you may read with --params."
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("experiments"), dict):
        found = "is empty" if document is None else "has no section `experiments:`"
        raise ConsiliumError(
            f"The parameter file {params} {found}. It needs the sections `defaults:` and "
            "`experiments:`, as the params.yaml of this project has them; name another file with "
            "--params."
        )
    for section in ("experiments", "pretraining"):
        for name in document.get(section) or {}:
            if not NAME.fullmatch(name):
                raise ConsiliumError(
                    f"{name!r} under `{section}:` in {params} cannot be a name: it names folders, "
                    "and models and runs in other tools. Use letters, digits, -, _ and ., and "
                    "begin with none of the last two."
                )
    return document


def experiment_names(params: Path = Path("params.yaml")) -> list[str]:
    """The names of all experiments in params.yaml.

    Raises:
        ConsiliumError: the file is missing, is not YAML, or has no experiments.
    """
    return list(read_params(params).get("experiments") or {})


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``base`` with ``top`` laid over them, section by section.

    Where ``top`` changes the ``name`` of one of :data:`CHOICES`, the other keys of that section
    start afresh, because they belong to the other implementation.

    Raises:
        ConsiliumError: ``top`` is not a mapping.
    """
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


def experiment_values(document: Mapping[str, Any], name: str, params: Path) -> dict[str, Any]:
    """The values of an experiment over the defaults.

    Args:
        document: the parameter file, as :func:`read_params` gives it.
        name: the experiment's name; ``pretrain-NAME`` is the backbone NAME of ``pretraining``.
        params: the parameter file, for the message.

    Raises:
        ConsiliumError: there is no such experiment.
    """
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
