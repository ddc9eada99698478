"""What a run keeps of what sites have told at its end: for the summary, and for intervals.

The sums of each group over the sites lie in a file of the run's folder beside ``summary.json``,
which has the metrics: the report's intervals follow from the sums.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federated.learning.flip_statistics import FLIP, FLIP_CASES
from federated.learning.statistics import EvaluationStatistics, from_wire, to_wire
from federated.learning.subgroup_statistics import FinalSums, FinalTask, Group
from federated.run.statistics_file import read_arrays, write_arrays
from federated.settings.sections import EvaluationSettings

# Of each attribute the statistics of its groups in order; ``None`` of one that nobody tells.
Groups = Mapping[str, Sequence[EvaluationStatistics | None]]


def final_record(
    sums: FinalSums, missing: Mapping[str, str], settings: EvaluationSettings
) -> dict[str, Any]:
    """What was told, as plain values for ``summary.json``.

    Args:
        sums: over the sites.
        missing: the sites of which nothing counts, and why.
        settings: what was asked for.
    """
    found: dict[str, Any] = {}
    if settings.subgroups is not None:
        found["subgroups"] = {
            "attributes": {
                name: [_group(group) for group in groups] for name, groups in sums.groups.items()
            },
            "missing": dict(missing),
        }
    if settings.uncertainty == "flips":
        there = sums.whole.arrays.get(FLIP_CASES)
        found["uncertainty"] = {
            "method": "flips",
            "cases": None if there is None else int(there[0]),
            "metrics": {
                name: value
                for name, value in sums.measured.metrics.items()
                if name.startswith(FLIP)
            },
            "missing": dict(missing),
        }
    return found


def _group(group: Group) -> dict[str, Any]:
    told = {"group": group.name, "told_by": list(group.told_by), "hidden_by": list(group.hidden_by)}
    if group.statistics is None or group.measured is None:
        return {**told, "cases": None, "metrics": {}, "bounds": {}}
    return {
        **told,
        "cases": group.statistics.cases,
        "metrics": dict(group.measured.metrics),
        "bounds": {name: list(ends) for name, ends in group.measured.intervals.items()},
    }


def final_numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of groups, and of flips, by names for a tracker: ``subgroups/sex/F/auc``."""
    numbers: dict[str, float | None] = {
        f"test/{name}": value
        for name, value in record.get("uncertainty", {}).get("metrics", {}).items()
    }
    for attribute, groups in record.get("subgroups", {}).get("attributes", {}).items():
        for group in groups:
            place = f"subgroups/{attribute}/{group['group']}"
            numbers[f"{place}/cases"] = group["cases"]
            numbers |= {f"{place}/{name}": value for name, value in group["metrics"].items()}
    return {name: float(value) for name, value in numbers.items() if value is not None}


def write_groups(path: Path, sums: FinalSums) -> None:
    """Write the statistics of each group over the sites that tell of it."""
    arrays = {
        f"{attribute}.{place}.{name}": array
        for attribute, groups in sums.groups.items()
        for place, group in enumerate(groups)
        if group.statistics is not None
        for name, array in to_wire(group.statistics).items()
    }
    write_arrays(path, arrays)


def read_groups(path: Path, asked: FinalTask) -> Groups:
    """What :func:`write_groups` wrote; nothing where there is no file.

    Raises:
        ConsiliumError: the file is damaged, or of other groups or classes.
    """
    if not path.is_file():
        return {}
    arrays = read_arrays(path, "intervals of subgroups")
    found: dict[str, list[EvaluationStatistics | None]] = {}
    for attribute, names in asked.groups.items():
        found[attribute] = []
        for place in range(len(names)):
            before = f"{attribute}.{place}."
            own = {
                name.removeprefix(before): array
                for name, array in arrays.items()
                if name.startswith(before)
            }
            told = from_wire(own, asked.plain, f"this run ({path})") if own else None
            found[attribute].append(told)
    return found
