"""What a person reads where a file cannot be read."""

import json
from pathlib import Path

import pytest

from federated.errors import why_unreadable


def read(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))["head"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "it is not there"),
        (b"\xff", "it is not text in UTF-8"),
        (b"{\n]", "it is not JSON, from line 2 on"),
        (b"{}", "it has no head"),
        (b"3", "what it holds has another form"),
    ],
)
def test_the_reason_is_in_plain_words(tmp_path, content, said):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whichever it is
        read(path)
    assert why_unreadable(caught.value) == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IsADirectoryError(21, "Is a directory"), "it is a folder, and a file is needed"),
        (NotADirectoryError(20, "Not a directory"), "one of the folders above it is a file"),
        (PermissionError(13, "Permission denied"), "you have no permission to read it"),
        (OSError(5, "Input/output error"), "the machine says: Input/output error"),
        (ValueError("it is cut short\nand more"), "it is cut short"),
        (EOFError(), "EOFError"),
    ],
)
def test_what_the_machine_says_has_no_number(error, said):
    assert why_unreadable(error) == said
