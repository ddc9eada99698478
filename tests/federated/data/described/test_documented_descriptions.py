"""The descriptions that docs/own-data.md shows can be used as they stand."""

import re
from pathlib import Path

import pytest

from federated.configuration.description_file import parse_description
from federated.data.folders.described.table_roles import read_table
from tests.conftest import PROJECT

TEXT = (PROJECT / "docs" / "own-data.md").read_text()
SHOWN = [text for text in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL) if "task:" in text]


@pytest.mark.parametrize("text", SHOWN)
def test_a_description_that_is_shown_is_whole(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.yaml").write_text(text)
    assert parse_description(tmp_path / "dataset.yaml", {}).licence


@pytest.mark.parametrize(
    ("task", "header", "labels"),
    [
        ("multilabel", "patient,image,site,oedema,hernia", ("oedema", "hernia")),
        ("regression", "patient,image,site,age", ("age",)),
    ],
)
def test_a_table_with_the_header_that_is_shown_is_read(
    tmp_path: Path, task: str, header: str, labels: tuple[str, ...]
) -> None:
    (text,) = [text for text in SHOWN if text.startswith(f"task: {task}")]
    assert f"`{header}`" in TEXT
    (tmp_path / "dataset.yaml").write_text(text)
    (tmp_path / "cases.csv").write_text(header + "\n" + ",".join("1" for _ in header.split(",")))
    description = parse_description(tmp_path / "dataset.yaml", {})
    assert read_table(tmp_path / "cases.csv", description).roles.labels == labels
