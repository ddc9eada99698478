"""The home of a site: the one absolute place for all that is the site's own.

Its keys, its privacy ledger and the releases that it has made lie below it, whatever folder a
command is started in. It is ``CONSILIUM_HOME``, or ``~/.consilium``; its owner alone can read it.
"""

import os
from pathlib import Path


def consilium_home() -> Path:
    """The site's home, absolute; it is not made here."""
    return Path(os.environ.get("CONSILIUM_HOME") or Path.home() / ".consilium").resolve()
