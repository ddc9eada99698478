"""What a site tells, at a run's end, of what it has spent: its form, and what is refused of it.

ε over the run is no larger than the plan lets the site spend. What concerns other runs, the ε of
all that was ever released and a budget, the coordinator cannot know; it is checked for being a
number that there can be.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from math import inf
from typing import Any, get_args

from federated.errors import ConsiliumError
from federated.privacy.hash_chain import Head
from federated.privacy.spending import Spending
from federated.rounds.participation import POOLED
from federated.settings.base import Unit

# In bytes, for each release, and for what is told once.
MOST_EACH, MOST_ONCE = 2048, 8192
LARGEST = 2**53
# By how much PRV's upper bound may be above RDP's, relatively and at tiny ε.
PRV_ERROR = 0.02
# ε of a run, which the plan bounds; each other number is at most LARGEST.
OF_THE_RUN = ("epsilon", "epsilon_per_round")
OPTIONAL = (
    *("epsilon", "epsilon_per_round", "epsilon_ledger", "epsilon_patient"),
    *("budget", "noise_multiplier", "sampling_rate"),
)
# Of a run without privacy these are not told.
PRIVATE_ALONE = ("budget", "noise_multiplier", "sampling_rate")
COUNTS = ("steps", "cases_of_one_patient")
HASH = re.compile(r"[0-9a-f]{64}")


def most_report(rounds: int, attempts: int) -> int:
    """How many bytes a report may have: of a run of so many rounds, begun so often."""
    return MOST_ONCE + MOST_EACH * (rounds + 1) * attempts


def read_told(
    content: bytes, site: str, run: str, private: bool, most_epsilon: float | None
) -> dict[str, Any]:
    """What a site tells of its privacy, as plain values.

    Args:
        content: the body of its message.
        site: whose it is.
        run: the run's id.
        private: whether the run is private.
        most_epsilon: the largest ε that the plan lets the site spend, by RDP; PRV shows less.

    Raises:
        ConsiliumError: it is no such report, or tells of more than the plan lets it spend.
    """
    try:
        value = json.loads(content)
        _refuse(value, site, run, private, most_epsilon)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConsiliumError(
            f"What {site} tells of its privacy is refused: {error!s:.200}. The run's summary says "
            "of it that nobody knows."
        ) from error
    told: dict[str, Any] = value
    return told


def _refuse(value: Any, site: str, run: str, private: bool, most_epsilon: float | None) -> None:
    """Refuse what is no report.

    Raises:
        ValueError: it is none.
    """
    names = {"holder", "releases", "head", *COUNTS, *OPTIONAL}
    if not private:
        names -= set(PRIVATE_ALONE)
    if not isinstance(value, dict) or value.keys() != names:
        raise ValueError("it has other fields than a report has")
    _text(value["holder"], "holder")
    for name in names & set(OPTIONAL):
        most = inf if most_epsilon is None else most_epsilon * (1 + PRV_ERROR) + PRV_ERROR
        most = most if name in OF_THE_RUN else inf
        if value[name] is not None and (not private or not 0 <= _number(value, name) <= most):
            raise ValueError(f"its {name} is {value[name]!r:.40}, and by the plan at most {most:g}")
    if value["cases_of_one_patient"] is not None:
        _count(value, "cases_of_one_patient")
    _count(value, "steps")
    if not isinstance(value["releases"], list):
        raise ValueError("its releases are none")
    for release in value["releases"]:
        _refuse_release(release, site, run)
    head = value["head"]
    if head.keys() != {field.name for field in fields(Head)} or not HASH.fullmatch(head["hash"]):
        raise ValueError("its head is none")
    _count(head, "count")


def _refuse_release(value: Any, site: str, run: str) -> None:
    expected = {field.name for field in fields(Spending)} - {"records"}
    if not isinstance(value, dict) or value.keys() != expected:
        raise ValueError("a release has other fields")
    for name in ("experiment", "mechanism"):
        _text(value[name], name)
    if (value["run"], value["site"] in (site, POOLED)) != (run, True):
        raise ValueError("a release is of another run or site")
    if value["unit"] not in get_args(Unit):
        raise ValueError(f"a release has the unit {value['unit']!r:.40}")
    for name in ("noise_multiplier", "sampling_rate", "clip"):
        _number(value, name)
    for name in ("steps", "round_number"):
        _count(value, name)


def _text(value: Any, what: str) -> None:
    if type(value) is not str or len(value) > 200 or not value.isprintable():
        raise ValueError(f"its {what} is {value!r:.40}")


def _count(value: Mapping[str, Any], name: str) -> None:
    if type(value[name]) is not int or not 0 <= value[name] <= LARGEST:
        raise ValueError(f"its {name} is {value[name]!r:.40}")


def _number(value: Mapping[str, Any], name: str) -> float:
    """A number of a report; of what is no number, as NaN, no comparison is true."""
    told = value[name]
    if type(told) not in (int, float) or not 0 <= told <= LARGEST:
        raise ValueError(f"its {name} is {told!r:.40}")
    return float(told)
