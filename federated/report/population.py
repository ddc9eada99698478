"""Whom the training cases are of: their ages, sexes and scanners, as sites have counted them.

They are from a run of `consilium statistics`, which sites have agreed to for itself; see
``docs/statistics.md``. A page adds nothing to what its report tells.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federated.planning.attributes import ATTRIBUTE_BINS
from federated.report.values import RunValues, small_number

NAMES = {"age": "age, years", "sex": "sex", "scanner": "maker of the scanner"}


@dataclass(frozen=True)
class Group:
    """An attribute of cases and how many there are of each of its values, as texts."""

    name: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Population:
    """The groups of the training cases of all sites together, and a sentence on their counts."""

    groups: Sequence[Group]
    note: str


def fits(run: RunValues, told: Mapping[str, Any]) -> bool:
    """Whether statistics are of the cases that a run has trained on, as far as counts show."""
    trained = {site: cases["train"] for site, cases in run.cases.items()}
    counted = {site: own["cases"] for site, own in told["sites"].items()}
    return bool(trained == counted and told["data_source"] == run.summary["data_source"])


def population_of(run: RunValues) -> Population | None:
    """Whom a run's training cases are of; ``None`` where nobody has counted that."""
    told = run.population
    if told is None or not fits(run, told):
        return None
    least, hides = run.experiment.evaluation.min_count, int(told["min_count"])
    found = {
        name: told["all_sites"][name] for name in ATTRIBUTE_BINS if told["all_sites"].get(name)
    }
    groups = [
        Group(NAMES[name], _rows(counts, least, hides))
        for name, counts in found.items()
        if not (hides < least and _has_few(counts, least))
    ]
    if not groups:
        return None
    privacy = told["privacy"]
    noise = (
        f" The counts have noise, for ε {privacy['epsilon']:g} and δ "
        f"{small_number(privacy['delta'])} of one patient."
        if privacy
        else ""
    )
    each = {
        "clear": " The coordinator has read the counts of each site.",
        "noised": " Each site has added noise to its own, which the coordinator has read."
        if told.get("protection") == "plain"
        else "",
    }.get(str(told.get("told")), "")
    return Population(
        groups,
        "Training cases of all sites together, as the sites have counted them." + each + noise,
    )


def _has_few(counts: Mapping[str, int | None], least: int) -> bool:
    """Whether one number is so small; then the whole group is left out, or it could be worked out
    from the total."""
    return any(count is not None and 0 < count < least for count in counts.values())


def _rows(counts: Mapping[str, int | None], least: int, hides: int) -> list[tuple[str, str]]:
    return [
        (
            value,
            f"not told (fewer than {max(least, hides)} are not)" if count is None else str(count),
        )
        for value, count in counts.items()
        if count != 0
    ]
