"""Text of another party as a person may be shown it.

What a site or a coordinator sends can hold anything: a control character of it would command the
terminal it is shown on, a line break would make a line of its own, and a mark that turns the order
of letters around would let a text read otherwise than it is.
"""

import unicodedata

# Unicode's general categories of characters that are not shown as themselves: controls, formats
# (marks of the order of letters among them), surrogates, private ones, breaks of lines.
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# In characters, of one text.
LONGEST = 4000


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
