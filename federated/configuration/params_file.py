"""params.yaml as plain values: reading it, overlaying sections, ``section.key=value`` items."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from federated.errors import ConsiliumError

# Sections whose ``name`` picks an implementation with keys of its own.
CHOICES = ("strategy", "privacy", "compression", "protection", "runner")


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


def read_params(params: Path) -> dict[str, Any]:
    """The parameter file as plain values, with an ``experiments`` mapping.

    Raises:
        ConsiliumError: no such file, not YAML, or no experiments.
    """
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


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``top`` laid over it, section by section.

    Where ``top`` changes the ``name`` of one of :data:`CHOICES`, the other keys of that section
    start afresh, because they belong to the other implementation.
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
