"""A metric of a task: its name, and where it is told."""

from dataclasses import dataclass
from typing import Literal

# In the line of a round, at a run's end, in rounds.csv, of each site in MLflow, in a comparison's
# table, with its spread over sites; and as what a round's model is chosen by.
Place = Literal["round", "end", "csv", "site", "compared", "site_spread", "selects"]


@dataclass(frozen=True)
class Metric:
    """A number that ``score`` of a task gives for each split."""

    name: str
    places: frozenset[Place]


def metric(name: str, *places: Place) -> Metric:
    """A metric and where it is told."""
    return Metric(name, frozenset(places))
