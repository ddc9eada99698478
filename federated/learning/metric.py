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
    """A number that ``score`` of a task gives for each split.

    It is from ``least`` to ``largest``, both ends included, and without a bound where one is
    ``None``. With ``always`` it has a value wherever there is a case.
    """

    name: str
    places: frozenset[Place]
    needs: Needs = "counts"
    best: Best = "largest"
    least: float | None = 0.0
    largest: float | None = 1.0
    always: bool = False


def metric(name: str, *places: Place, needs: Needs = "counts", best: Best = "largest") -> Metric:
    """A metric from 0 to 1, with the places where it is shown, and which value of it is best."""
    return Metric(name, frozenset(places), needs, best)


def mean_over_cases(name: str, *places: Place) -> Metric:
    """A mean over cases from 0 to 1, which has a value wherever there is a case."""
    return Metric(name, frozenset(places), "means", always=True)


def distance(name: str, *places: Place) -> Metric:
    """A mean of distances, where there are any: from 0 without an end, and smaller is better."""
    return Metric(name, frozenset(places), "means", "smallest", largest=None)


def error_over_cases(name: str, *places: Place) -> Metric:
    """A mean over cases of losses or errors: from 0 without an end, and smaller is better."""
    return Metric(name, frozenset(places), "means", "smallest", largest=None, always=True)
