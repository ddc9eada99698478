"""A metric of a task: its name, and the places where it is shown."""

from dataclasses import dataclass
from typing import Literal

# Where a metric is shown, in this order: in the line of a round, at a run's end, in rounds.csv, for
# each site in MLflow, in a comparison's table, and with its spread over sites. ``selects`` means
# that a round's model can be chosen by it.
Place = Literal["round", "end", "csv", "site", "compared", "site_spread", "selects"]


@dataclass(frozen=True)
class Metric:
    """A number that ``score`` of a task gives for each split."""

    name: str
    places: frozenset[Place]


def metric(name: str, *places: Place) -> Metric:
    """A metric with the places where it is shown."""
    return Metric(name, frozenset(places))
