"""What is unsure of a proposal, for two readers: who sits before the data, and who does not.

``dataset.yaml`` is at every site and at the coordinator. Files and folders are often named after
patients, so that no name of one may be in it, comments included.
"""


class Doubt(str):
    """What is unsure, as the site is told; ``unnamed`` is the same without names from there."""

    unnamed: str

    def __new__(cls, said: str, unnamed: str) -> "Doubt":
        made = super().__new__(cls, said)
        made.unnamed = unnamed
        return made


def with_example(said: str, example: object, more: str = "") -> Doubt:
    """A doubt with a file or folder that it is about."""
    return Doubt(f"{said}, as {example}{more}", f"{said}{more}")


def unnamed(doubt: str) -> str:
    """A doubt without names of files, folders and values that only its site may know."""
    return doubt.unnamed if isinstance(doubt, Doubt) else doubt
