"""The folders in which data sets are looked for."""

import os
from pathlib import Path


def data_roots(root: Path) -> list[Path]:
    """The folder ``root``, then the folder that CONSILIUM_DATA names, if any."""
    named = os.environ.get("CONSILIUM_DATA")
    return [root, *([Path(named)] if named else [])]
