"""Which names a site, an experiment or a run may have: they become names of files and folders.

A name that comes from a table, a file, a message or the command line is refused before anything is
made of it: ``a/../../x`` would leave the folder that it is meant for.
"""

import re

from federated.errors import ConsiliumError

# Letters of any alphabet; nothing at the beginning that would hide a file or pass for an option.
PATTERN = re.compile(r"[^\W_][\w-]*(?:\.[\w-]+)*")
# In bytes: with what is put after it, a file's name has at most 255.
LONGEST = 100
# The coordinator's own names: all sites together, the sum of their payloads, the newest run,
# itself, and who a message is for that every party may read.
TAKEN = ("pooled", "sum", "latest", "coordinator", "all")


def refuse_name(name: str, what: str, where: str = "") -> str:
    """The name itself, if a file or folder can have it.

    Args:
        name: of a run or an experiment, from anywhere.
        what: what it is to be, as ``an experiment's name``.
        where: where it was found, which the message says after that.

    Raises:
        ConsiliumError: no file or folder can have it; the message says what they can have.
    """
    return _checked(name, PATTERN.fullmatch(name) is not None, what, where, "and single dots ")


def refuse_site_name(name: str, where: str = "") -> str:
    """The name itself, if it can be a site's: without dots, which the endings of files begin with.

    Raises:
        ConsiliumError: it cannot; the message says what can.
    """
    good = PATTERN.fullmatch(name) is not None and "." not in name and name not in TAKEN
    return _checked(name, good, "a site's name", where, "")


def _checked(name: str, good: bool, what: str, where: str, dots: str) -> str:
    if not good or len(name.encode()) > LONGEST:
        raise ConsiliumError(
            f"{name!r:.120} cannot be {what}{where}. Use letters, digits, - and _ {dots}(at most "
            f"{LONGEST} bytes, a letter or digit first), as in clinic-north; "
            f"{', '.join(TAKEN)} are taken."
        )
    return name
