"""What may be the name of a site, an experiment or a run: they become names of files and folders.

A name that comes from a table, a file, a message or the command line is refused before anything is
made of it: ``a/../../x`` would leave the folder that it is meant for.
"""

import re

from federated.errors import ConsiliumError

# Letters of any alphabet; not at the beginning what would hide a file or pass for an option.
PATTERN = re.compile(r"[^\W_][\w-]*(?:\.[\w-]+)*")
# In bytes: with what is put behind it, a file's name has at most 255.
LONGEST = 100
# Of the coordinator's own: all sites together, the sum of their payloads, the newest run.
TAKEN = ("pooled", "sum", "latest")


def refuse_name(name: str, what: str, where: str = "") -> str:
    """The name itself, if a file or folder can have it.

    Args:
        name: of a run, an experiment; from anywhere.
        what: it is to be, as ``an experiment's name``.
        where: it was found, to be said after that.

    Raises:
        ConsiliumError: it cannot; says what can.
    """
    return _checked(name, PATTERN.fullmatch(name) is not None, what, where, "and single dots ")


def refuse_site_name(name: str, where: str = "") -> str:
    """The name itself, if it can be a site's: without dots, which the endings of files begin with.

    Raises:
        ConsiliumError: it cannot; says what can.
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
