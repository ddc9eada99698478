"""Where data sets are looked for."""

import os
from pathlib import Path


def data_roots(root: Path) -> list[Path]:
    """``root``, then the folder that CONSILIUM_DATA names, if any."""
    named = os.environ.get("CONSILIUM_DATA")
    return [root, *([Path(named)] if named else [])]
