"""A dossier does not tell where files lie on the machine that it is made on."""

import io
import zlib
from zipfile import ZIP_DEFLATED, ZipFile

import pytest

from federated.release.places import without_places
from tests.federated.release.inside import found_in

SAID = {
    "/home/jane/data": "…/data",
    "/home/jane/my data/": "…/my data",
    "data.root=/home/jane/data": "data.root=…/data",
    'data.root="/home/Jane Doe/data"': 'data.root="…/data"',
    "late: cannot read /srv/clinic/x.nii.gz (Permission denied)": (
        "late: cannot read …/x.nii.gz (Permission denied)"
    ),
    "the files '/a/b' and \"/c/d/e\"": "the files '…/b' and \"…/e\"",
    "file:///home/jane/mlruns": "…/mlruns",
}
# What is no path, or says nothing of a machine.
KEPT = ("data", "runs/x/y", "and/or", "1/2", "https://example.org/a/b", "≈ 3 / 4", "n/a", "/", "")


@pytest.mark.parametrize("text", SAID)
def test_of_a_path_its_last_part_is_left(text):
    assert without_places(text) == SAID[text]
    assert without_places({"a": [text, 1.5, None]}) == {"a": [SAID[text], 1.5, None]}
    assert without_places(SAID[text]) == SAID[text]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_path_stays(text):
    assert without_places(text) == text


def test_keys_are_texts_too():
    assert without_places({"/home/jane/x": 1}) == {"…/x": 1}


def test_what_is_packed_is_looked_into():
    """The search that other tests rest on finds what is hidden."""
    inner = io.BytesIO()
    with ZipFile(inner, "w", ZIP_DEFLATED) as packed:
        packed.writestr("a.txt", "x" * 1000 + "/home/jane")
    outer = io.BytesIO()
    with ZipFile(outer, "w", ZIP_DEFLATED) as packed:
        packed.writestr("inner.zip", inner.getvalue())
    for content in (
        outer.getvalue(),
        zlib.compress(b"x" * 1000 + b"/home/jane"),
        b"x" + "/home/jane".encode("utf-16-le"),
        b'{"a": "\\/home\\/jane"}',
    ):
        assert len(found_in([("f", content)], ["/home/jane"])) == 1
        assert found_in([("f", content)], ["/home/john"]) == []
