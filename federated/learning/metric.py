"""A metric of a task: its name, and the places where it is shown."""

from dataclasses import dataclass
from typing import Literal

# Where a metric is shown, in this order: in the line of a round, at a run's end, in rounds.csv, for
# each site in MLflow, in a comparison's table, and with its spread over sites. ``selects`` means
# that a round's model can be chosen by it.
Place = Literal["round", "end", "csv", "site", "compared", "site_spread", "selects"]


Best = Literal["largest", "smallest"]
# What a metric over the cases of all sites follows from: the sites' own values, as their weighted
# mean; or counts that are summed over sites; or histograms of scores, which have many cells.
Needs = Literal["means", "counts", "scores"]


@dataclass(frozen=True)
class Metric:
    """A number that ``score`` of a task gives for each split."""

    name: str
    places: frozenset[Place]
    needs: Needs
    best: Best = "largest"


def metric(name: str, *places: Place, needs: Needs = "counts", best: Best = "largest") -> Metric:
    """A metric with the places where it is shown, what it follows from, and which value is best."""
    return Metric(name, frozenset(places), needs, best)
