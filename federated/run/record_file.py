"""Reading the record of a round, ``round.json``: what is damaged is refused, and named."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json

# What every record has, and what one may have, with what it has to be.
ALWAYS: Mapping[str, type] = {"round": int, "sites": list, "metrics": dict}
IF_THERE: Mapping[str, type] = {
    **dict.fromkeys(("dropped", "absent", "not_evaluated", "unreported", "bytes", "seconds"), dict),
    **dict.fromkeys(("classes_absent", "spread", "epsilon_rdp", "intervals", "confusion"), dict),
    "per_site": dict,
    "lost": str,
}
# Tables whose cells are numbers, or nothing where a number is not told.
NUMBERS = ("epsilon_rdp", "bytes", "seconds")


def read_record(path: Path, number: int, sites: Collection[str] | None = None) -> dict[str, Any]:
    """The record of a round.

    Args:
        path: its file.
        number: the round that it has to be of.
        sites: those of which it keeps what is of a single site, for whoever keeps many records;
            all, if left out.

    Raises:
        ConsiliumError: it cannot be read, or is no record of that round.
    """
    try:
        record = _checked(read_json(path), number)
        if sites is not None and record.get("per_site"):
            own = record["per_site"]
            record["per_site"] = {site: own[site] for site in own if site in sites}
        return record
    except (ConsiliumError, OSError, ValueError, TypeError) as error:
        why = error if isinstance(error, ConsiliumError) else why_unreadable(error)
        raise ConsiliumError(
            f"The record of round {number}, {path}, cannot be read ({why}). Put the file back from "
            "a copy, or start a new run: without it nobody knows which sites were in the round."
        ) from error


def _checked(value: Any, number: int) -> dict[str, Any]:
    """The record, if it is one.

    Raises:
        ValueError: it is none of that round.
    """
    if not isinstance(value, dict):
        raise ValueError("it is no record of a round")
    for key, kind in ALWAYS.items():
        if type(value.get(key)) is not kind:
            raise ValueError(f"its {key!r} is missing, or something else")
    for key, kind in IF_THERE.items():
        if value.get(key) is not None and type(value[key]) is not kind:
            raise ValueError(f"its {key!r} is something else")
    if value["round"] != number:
        raise ValueError(f"it is of round {value['round']}")
    if not all(type(site) is str for site in value["sites"]):
        raise ValueError("its 'sites' are no names")
    tables = [value[key] for key in NUMBERS if value.get(key)]
    tables += [*value["metrics"].values(), *_of_sites(value)]
    if not all(_is_numbers(table) for table in tables):
        raise ValueError("what should be a number in it is none")
    return value


def _of_sites(value: Mapping[str, Any]) -> list[Any]:
    """The metrics of each site, by split, where they are told."""
    known = (value.get("per_site") or {}).values()
    return [own.get(split, {}) if isinstance(own, dict) else own for own in known
            for split in ("train", "val", "test")]  # fmt: skip


def _is_numbers(table: Any) -> bool:
    return isinstance(table, dict) and all(
        each is None or type(each) in (int, float) for each in table.values()
    )
