"""A running server of a coordinator, for every test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.federated.exchange.https.world import World, make_world, serving


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A coordinator whose server runs, and three sites; no proxy in between."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made = make_world(tmp_path)
    with serving(made):
        yield made
