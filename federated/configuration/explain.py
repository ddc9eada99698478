"""What is wrong in params.yaml, in words for a person."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError


def closest(word: str, known: Iterable[str]) -> str:
    """A question that proposes the known word nearest to ``word``; ``""`` if none is near."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def explain(
    error: ValidationError,
    *,
    name: str,
    where: str,
    schema: Mapping[str, Any],
    choices: Sequence[str],
) -> str:
    """One sentence for each problem: the key, the value, and what is allowed.

    Args:
        error: what pydantic found.
        name: the experiment's name.
        where: where the values come from, as ``params.yaml``.
        schema: the JSON schema of an experiment.
        choices: the sections whose ``name`` picks an implementation.
    """
    sentences: dict[str, str] = {}
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        key = ".".join(_as_written(location, choices))
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_keys(location, schema)
            sentences[key] = (
                f"{key} is not a known key.{closest(location[-1], allowed)}"
                f"{_owners(location, schema)} Allowed here: {', '.join(allowed)}"
            )
            continue
        if problem["type"] == "union_tag_invalid":
            tags, tag = problem["ctx"]["expected_tags"], problem["ctx"]["tag"]
            close = closest(tag, tags.replace("'", "").split(", "))
            said = f"{key}.name={tag!r} is not possible.{close} There are {tags}"
            sentences[f"{key}.name"] = said
            continue
        if problem["type"] == "missing":
            sentences[key] = f"{key} is missing: it has no default"
            continue
        message = problem["msg"]
        if problem["type"] in ("model_type", "model_attributes_type"):
            message = "A section is a mapping such as {key: value}"
        if key in sentences:  # another branch of a union
            sentences[key] += f"; or: {message}"
        else:
            sentences[key] = f"{key}={problem['input']!r} is not possible: {message}"
    return f"Experiment {name} of {where} cannot be used. " + ". ".join(sentences.values()) + "."


def _as_written(location: list[str], choices: Sequence[str]) -> list[str]:
    """A location without what pydantic adds for unions: the chosen name, the type tried."""
    chosen = len(location) > 2 and location[0] in choices
    kept = [part for i, part in enumerate(location) if not (chosen and i == 1)]
    return [part for part in kept if "[" not in part and not part.startswith("constrained-")]


def _owners(location: list[str], schema: Mapping[str, Any]) -> str:
    """A sentence that names the other choices of the section that have the refused key."""
    if len(location) != 3:
        return ""
    node = schema["properties"].get(location[0], {})
    mapping = node.get("discriminator", {}).get("mapping", {})
    owners = [
        name
        for name, reference in mapping.items()
        if location[-1] in schema["$defs"][reference.rsplit("/", 1)[-1]]["properties"]
    ]
    if not owners:
        return ""
    return f" It belongs to {location[0]}.name={' or '.join(owners)}: leave it out, or set that."


def _allowed_keys(location: list[str], schema: Mapping[str, Any]) -> list[str]:
    """The keys that the section of a refused key knows."""
    keys = schema
    definitions = keys.get("$defs", {})
    for part in location[:-1]:
        node = keys["properties"].get(part, {}) if "properties" in keys else keys
        options = [node, *node.get("oneOf", []), *node.get("allOf", [])]
        references = [o["$ref"].rsplit("/", 1)[-1] for o in options if "$ref" in o]
        mapping = node.get("discriminator", {}).get("mapping", {})
        if mapping:
            chosen = location[location.index(part) + 1]
            keys = definitions[mapping[chosen].rsplit("/", 1)[-1]]
            break
        if references:
            keys = definitions[references[0]]
    return [key for key in keys.get("properties", {}) if key != "name" or len(location) > 1]
