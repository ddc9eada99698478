"""What is wrong in an experiment's settings, in words for a person."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

Node = Mapping[str, Any]
# What a value may be, by the type that a JSON schema gives it.
KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
    "object": "a section with keys of its own, as {key: value}",
}
# The longest that a value is shown.
LONGEST = 100


def closest(word: str, known: Iterable[str]) -> str:
    """A question that proposes the known word nearest to ``word``; ``""`` if none is near."""
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def explain(error: ValidationError, schema: Node, origins: Mapping[str, str]) -> str:
    """One sentence for each problem: the key, the value, what is allowed, and who set it.

    Args:
        error: what pydantic found.
        schema: the JSON schema of an experiment.
        origins: by key, what has set a value that is not the parameter file's, as ``--rounds``.
    """
    sentences: dict[str, str] = {}
    for problem in error.errors():
        location = problem["loc"]
        key, node = _found(location, schema)
        if problem["type"] == "extra_forbidden":
            said = _unknown_key(key, location, schema)
        elif problem["type"] == "union_tag_invalid":
            names, key = problem["ctx"]["expected_tags"], f"{key}.name"
            close = closest(str(problem["ctx"]["tag"]), names.replace("'", "").split(", "))
            name = _written(problem["input"]["name"])
            said = f"{key}={name} is not possible.{close} There are {names}"
        elif problem["type"] in ("missing", "union_tag_not_found"):
            key += ".name" if problem["type"] == "union_tag_not_found" else ""
            said = f"{key} is missing: it has no default"
        elif problem["type"] == "value_error":
            whose = f"The section {key} is not possible" if key else "Its keys do not go together"
            said = f"{whose}: {problem['ctx']['error']}"
        else:
            allowed = _allowed(node, schema)
            if problem["type"] == "finite_number":
                allowed = allowed.replace("a number", "a finite number")
            said = f"{key}={_written(problem['input'])} is not possible: it has to be {allowed}"
        # The branches of a union each have a problem with the same value.
        sentences.setdefault(key, f"{said}.{_origin(key, origins)}")
    return " ".join(sentences.values())


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """A sentence on what has set a key, or parts of its section; ``""`` for the parameter file."""
    own = key.partition("[")[0]
    found = {
        origin: None
        for other, origin in origins.items()
        if own == other or own.startswith(f"{other}.") or other.startswith(f"{own}.")
    }
    return f" It was set by {' and '.join(found)}." if found else ""


def _found(location: Sequence[str | int], schema: Node) -> tuple[str, Node]:
    """The key of a location as a person writes it, and its node in the schema.

    pydantic adds to a location what is no key: the name that picks one of several sections, and the
    type that it tried of several.
    """
    key, node = "", schema
    for part in location:
        options = [*_options(node, schema)]
        inside = [
            each["properties"][part] for each in options if part in each.get("properties", {})
        ]
        if isinstance(part, int):
            key += f"[{part}]"
            node = next((each["items"] for each in options if "items" in each), node)
        elif part in (mapping := node.get("discriminator", {}).get("mapping", {})):
            node = {"$ref": mapping[part]}
        elif inside:
            key += f".{part}" if key else part
            node = inside[0]
        elif any(_has_keys(each) for each in options):
            key += f".{part}" if key else part
    return key, node


def _options(node: Node, schema: Node) -> Iterator[Node]:
    """What a value may be by its node in the schema, without references."""
    if "$ref" in node:
        yield from _options(schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], schema)
    elif "anyOf" in node:
        for each in node["anyOf"]:
            yield from _options(each, schema)
    else:
        yield node


def _has_keys(node: Node) -> bool:
    """Whether a value of this form is a section with keys of its own."""
    return "properties" in node or "discriminator" in node


def _allowed(node: Node, schema: Node) -> str:
    """What a value may be, by its node in the schema, as ``a whole number of at least 1``."""
    if "discriminator" in node:
        return KINDS["object"]
    found: list[str] = []
    for option in _options(node, schema):
        if "const" in option or "enum" in option:
            found += map(repr, option.get("enum", [option.get("const")]))
        elif option.get("type") == "array":
            # A list of a certain length says of each place what it may be; all are alike here.
            each = option["prefixItems"][0] if "prefixItems" in option else option["items"]
            least, most = option.get("minItems"), option.get("maxItems")
            many = f" of {least}" if least == most is not None else ""
            found.append(f"a list{many}, each of it {_allowed(each, schema)}")
        else:
            found.append(KINDS[option["type"]] + _bounds(option))
    return _or(found)


def _bounds(node: Node) -> str:
    """The limits of a number or a text in words; ``""`` without any."""
    limits = [
        f"{word} {node[key]:g}" if node[key] < 10**6 else f"{word} {node[key]}"
        for key, word in (
            *(("minimum", "of at least"), ("exclusiveMinimum", "above")),
            *(("maximum", "of at most"), ("exclusiveMaximum", "below")),
        )
        if key in node
    ]
    if len(limits) == 2:
        limits[1] = limits[1].removeprefix("of ")
    text = " and ".join(limits)
    if "multipleOf" in node:
        text += f", a multiple of {node['multipleOf']}"
    if node.get("minLength"):
        text = "that is not empty"
    return f" {text}" if text else ""


def _unknown_key(key: str, location: Sequence[str | int], schema: Node) -> str:
    _, section = _found(location[:-1], schema)
    known = [
        name
        for each in _options(section, schema)
        for name in each.get("properties", {})
        if len(location) > 1 or name != "name"  # the experiment's own name is no key
    ]
    last = str(location[-1])
    # In a section of several kinds, its name is in the location too.
    owners = _owners(str(location[0]), last, schema) if len(location) == 3 else ""
    return (
        f"{key} is not a known key.{closest(last, known)}{owners} Allowed here: {', '.join(known)}"
    )


def _owners(section: str, key: str, schema: Node) -> str:
    """A sentence that names the other choices of a section that have a refused key."""
    mapping = schema["properties"].get(section, {}).get("discriminator", {}).get("mapping", {})
    owners = [
        name
        for name, reference in mapping.items()
        if any(key in each["properties"] for each in _options({"$ref": reference}, schema))
    ]
    if not owners:
        return ""
    return f" It belongs to {section}.name={' or '.join(owners)}: leave it out, or set that."


def _or(words: Sequence[str]) -> str:
    """Words as a person reads them: ``28 or 64``, ``none, top_k or shared_mask``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _written(value: Any) -> str:
    """A value as it is written in YAML, more or less: text in quotes, ``true``, ``null``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if isinstance(value, str | list | dict | tuple) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]} …"
