"""What a dossier does not tell of the machine that it is made on: where its files lie.

A path names people and folders of a hospital or a company, and is of no use to who reads a dossier.
"""

import re
from collections.abc import Mapping
from typing import Any

# In place of the folders that a file or a folder lies in.
SOMEWHERE = "…/"
# A whole text, or what follows ``key=`` of an item of --set, that is a path and nothing else.
WHOLE = re.compile(r"""(?P<key>[\w.]+=)?(?P<quote>["']?)(?P<path>/.+?)(?P=quote)""", re.DOTALL)
# A path of at least two parts inside of a sentence; one of an address begins with two strokes.
INSIDE = re.compile(
    r"""(?:file:/*|(?<![\w/:.…]))/(?:[^\s/"'<>|,;()]+/)+(?P<name>[^\s/"'<>|,;()]*)"""
)


def without_places(value: Any) -> Any:
    """A value of JSON in which of each absolute path the last part alone is left."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_text(str(key)): without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(each) for each in value]
    return value


def _text(text: str) -> str:
    if found := WHOLE.fullmatch(text):
        name = found["path"].rstrip("/").rpartition("/")[2]
        return f"{found['key'] or ''}{found['quote']}{SOMEWHERE}{name}{found['quote']}"
    return INSIDE.sub(lambda path: SOMEWHERE + path["name"], text)
