"""The errors that tell a person why their input cannot be used, and text of another party in them.

What a site or a coordinator sends can hold anything: a control character of it would command the
terminal it is shown on, a line break would make a line of its own, and a mark that turns the order
of letters around would let a text read otherwise than it is.
"""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

# In characters: what validation finds at a thousand sites is a line each.
LONGEST_ERROR = 200_000
# Unicode's general categories of characters that are not shown as themselves: controls, formats
# (marks of the order of letters among them), surrogates, private ones, breaks of lines.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# In characters, of one text.
LONGEST = 4000


class ConsiliumError(Exception):
    """One paragraph for a person that says what is wrong, where, and what to do.

    Parts of it may be another party's, so that its text has no control characters, and an end.
    """

    def __str__(self) -> str:
        return printable(super().__str__(), LONGEST_ERROR, keep="\n")


class NobodyLeftError(ConsiliumError):
    """Every site that was asked for something in a round has dropped out, and none goes on."""


class RefusalError(ConsiliumError):
    """A site's refusal, in words that tell nothing of its cases, because everyone may read them.

    Any other error at a site of a private run is shown to the site alone: it may, say, name by its
    path a file that cannot be read. It is one line, since it may be of another party.

    Attributes:
        kept: what belongs to the refusal and nobody else is to read, for the log of whoever
            refuses; see ``entering.py``.
    """

    def __init__(self, text: str, kept: str = "") -> None:
        super().__init__(text)
        self.kept = kept

    def __str__(self) -> str:
        return printable(super().__str__())


class TooFewSitesError(RefusalError):
    """So few sites are left that nobody opens, or could open, their sum.

    What they have sent harms nothing and tells nothing: a consortium loses that round and goes on.
    ``refused`` says of sites whose payloads did not count why they did not.
    """

    def __init__(self, text: str, refused: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.refused = dict(refused or {})


def kept_at_site(site: str, stage: str, where: Path) -> str:
    """What others are told of any error at a site in a private run, whatever it was.

    Args:
        site: the site.
        stage: what it was to do.
        where: the file at the site that the error is kept in.
    """
    return (
        f"{site} could not finish its part, {stage}. The run is private, so the reason stays with "
        f"the site, in {where}."
    )


def why_unreadable(error: Exception) -> str:
    """Why a file could not be read, in one line that goes on from a sentence that names the file.

    What the operating system and Python say, such as ``[Errno 2] No such file or directory``, is
    said in plain words; other errors keep their own first line.
    """
    match error:
        case FileNotFoundError():
            return "it is not there"
        case IsADirectoryError():
            return "it is a folder, and a file is needed"
        case NotADirectoryError():
            return "one of the folders above it is a file"
        case PermissionError():
            return "you have no permission to read it"
        case OSError(strerror=str(said)):
            return f"the machine says: {said}"
        case UnicodeDecodeError():
            return "it is not text in UTF-8"
        case json.JSONDecodeError():
            return f"it is not JSON, from line {error.lineno} on"
        case KeyError():
            return f"it has no {error.args[0]}"
        case AttributeError() | TypeError():
            return "what it holds has another form"
    lines = str(error).splitlines()
    return lines[0][:400] if lines else type(error).__name__


def unreadable(path: Path, error: Exception) -> ConsiliumError:
    """The error for a file that no decoder can make anything of, which the caller raises."""
    return ConsiliumError(
        f"The file {path} cannot be read ({why_unreadable(error):.160}). It is missing, damaged or "
        "of another kind; put a whole copy there."
    )


def printable(text: str, most: int = LONGEST, keep: str = "") -> str:
    r"""The text with every character that is not shown as itself written as ``\x1b`` or ``\u202e``.

    Args:
        text: of anybody.
        most: how many characters are taken of it; a longer one ends with how long it was.
        keep: characters that stay as they are, as ``\n`` in text of our own.
    """
    start = text[:most]
    if not start.isprintable():
        start = "".join(
            each if each in keep or unicodedata.category(each) not in UNSEEN else _escaped(each)
            for each in start
        )
    return start if len(text) <= most else f"{start}… ({len(text)} characters)"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
