"""YAML 1.2 as plain values, read as DVC reads it: by ruamel.yaml.

In YAML 1.1 ``010`` is 8, ``1:30`` is 90, ``no`` is false and ``1e-3`` is text; none of these is
what a person means. Keys that are there twice, of which other readers take the last, and keys that
are not text are refused with their lines.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"

# What the fault is in from where it begins; that it does not end is seen lines later.
BEGUN = ("while scanning a simple key", "while scanning a quoted scalar")


class UnclearYamlError(ValueError):
    """What is wrong with a text of YAML, in words that go on from where it stands."""


def parse_yaml(text: str) -> Any:
    """The plain values of a text of YAML.

    Raises:
        UnclearYamlError: the text is not YAML, has a key twice in a mapping, or has a key that is
            not text.
    """
    try:
        return deepcopy(_checked(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context in BEGUN:
            mark = error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context or "it cannot be parsed"
        space = " and a space after it" if error.context == BEGUN[0] else ""
        raise UnclearYamlError(where + problem.strip() + space) from error
    except RecursionError as error:
        raise UnclearYamlError("it is nested too deep, or in itself by an anchor") from error
    except KeyError as error:
        raise UnclearYamlError(f"the value {error} is not of the type that its tag says") from error
    except (YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, UnclearYamlError):
            raise
        raise UnclearYamlError(" ".join(str(error).split())) from error


def key_lines(text: str) -> dict[str, int]:
    """The lines, from 1, in which the keys of a text's outermost mapping stand."""
    return dict(_key_lines(text))


# The reader that knows lines takes some hundredths of a second, and the sites of a simulation have
# policies of one text.
@lru_cache(maxsize=32)
def _checked(text: str) -> Any:
    """The plain values of a text, which nobody may change, once nothing in it is unclear."""
    root = YAML(typ="safe", pure=True).compose(text)
    if root is not None and (faults := list(_faults(root, set()))):
        raise UnclearYamlError("; ".join(faults))
    return YAML(typ="safe").load(text)


@lru_cache(maxsize=32)
def _key_lines(text: str) -> tuple[tuple[str, int], ...]:
    root = YAML(typ="safe", pure=True).compose(text)
    if not isinstance(root, MappingNode):
        return ()
    return tuple((key.value, key.start_mark.line + 1) for key, _ in root.value)


def _faults(node: Node, seen: set[int]) -> Iterator[str]:
    """What is unclear in a node and below it; what anchors share is told once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, SequenceNode):
        for item in node.value:
            yield from _faults(item, seen)
    if isinstance(node, MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, ScalarNode) else "of several values"
            if not isinstance(key, ScalarNode) or key.tag not in (TEXT, MERGE):
                yield f"the key {name} in line {line} is no text, unless in quotes"
            elif name in lines:
                yield f"the key {name!r} is in line {lines[name]} and again in line {line}"
            lines.setdefault(name, line)
            yield from _faults(value, seen)
