"""Age, sex and scanner of a case in bins that are the same at every site, whatever its data are.

A cell that says nothing, or something else than these bins know, is counted as such: texts of one's
own never leave a site, since a rare one could name a patient.
"""

from collections.abc import Mapping
from math import isfinite

from federated.data.subgroups import SEX_WORDS

UNKNOWN = "unknown"
DECADES = tuple(f"{start}-{start + 9}" for start in range(0, 90, 10))
AGES = (*DECADES, "90+", UNKNOWN)
SEXES = ("female", "male", "other", UNKNOWN)
# Makers of scanners by how their names begin in the files and tables of hospitals.
MAKERS: Mapping[str, tuple[str, ...]] = {
    "siemens": ("siemens",),
    "ge": ("ge", "general electric"),
    "philips": ("philips",),
    "canon": ("canon", "toshiba"),
    "fujifilm": ("fujifilm", "fuji", "hitachi"),
    "united imaging": ("united imaging", "uih"),
    "other": (),
    UNKNOWN: (),
}
# The bins of each attribute, in order.
ATTRIBUTE_BINS: Mapping[str, tuple[str, ...]] = {
    "age": AGES,
    "sex": SEXES,
    "scanner": tuple(MAKERS),
}


def attribute_place(name: str, text: str) -> int:
    """The bin that a cell of a table is counted in.

    Args:
        name: the attribute, one of :data:`ATTRIBUTE_BINS`.
        text: the cell; empty where nothing is known. Ages are in years, also as DICOM writes them
            (``063Y``).

    Returns:
        The place of the bin in :data:`ATTRIBUTE_BINS`.
    """
    told = " ".join(text.lower().split())
    found = {"age": _age, "sex": _sex, "scanner": _scanner}[name](told)
    return ATTRIBUTE_BINS[name].index(found)


def _age(text: str) -> str:
    try:
        years = float(text.removesuffix("y").replace(",", "."))
    except ValueError:
        return UNKNOWN
    if not isfinite(years) or not 0 <= years < 150:
        return UNKNOWN
    return AGES[min(int(years // 10), len(DECADES))]


def _sex(text: str) -> str:
    return SEX_WORDS.get(text, UNKNOWN)


def _scanner(text: str) -> str:
    if not text or text in ("unknown", "na", "n/a", "none", "-"):
        return UNKNOWN
    known = (maker for maker, names in MAKERS.items() if _begins(text, names))
    return next(known, "other")


def _begins(text: str, names: tuple[str, ...]) -> bool:
    return any(text == name or text.startswith((f"{name} ", f"{name}_")) for name in names)
