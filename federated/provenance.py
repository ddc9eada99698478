"""Which code made a result."""

import subprocess
from pathlib import Path


def git_commit(folder: Path) -> str:
    """The commit of a checkout, with ``-dirty`` for local changes; ``unknown`` outside one."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
