"""Which round's model a run keeps, and when it stops early; both follow from the records alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from federated.learning import smaller_is_better
from federated.learning.evaluation import PREDICTS_NONE
from federated.settings.sections import SelectionSettings

Records = Sequence[Mapping[str, Any]]


def improves(metric: str, value: float, best: float) -> bool:
    """Whether ``value`` is better than ``best``; a loss or an error is when it is smaller."""
    return value < best if smaller_is_better(metric.split("/")[-1]) else value > best


def is_evaluated(selection: SelectionSettings, round_number: int, rounds: int) -> bool:
    """Whether the model is evaluated after a round of ``rounds``."""
    return round_number % selection.every == 0 or round_number == rounds


def metric_value(record: Mapping[str, Any], metric: str) -> float | None:
    """A metric such as ``val/auc`` of a round's record; ``None`` where it has no value."""
    return metric_value_of(record["metrics"], metric) if record["metrics"] else None


def metric_value_of(metrics: Mapping[Any, Any], metric: str) -> float | None:
    """A metric such as ``val/auc`` of metrics by split, for example a site's."""
    split, name = metric.split("/")
    value: float | None = metrics[split][name]
    return value


def best_round(records: Records, metric: str) -> int:
    """The first round with the best value, or the last round where none has a value."""
    best: tuple[int, float] | None = None
    for record in records:
        value = metric_value(record, metric)
        if value is not None and (best is None or improves(metric, value, best[1])):
            best = (record["round"], value)
    return best[0] if best else int(records[-1]["round"])


def kept_round(records: Records, selection: SelectionSettings) -> int:
    """The round whose model the run keeps, which is one that was evaluated if there is any."""
    evaluated = [record for record in records if record["metrics"]]
    if not evaluated:
        return len(records)
    last: int = evaluated[-1]["round"]
    return last if selection.keep == "last" else best_round(evaluated, selection.metric)


def predicts_nothing(records: Records) -> bool:
    """Whether a run has no model that predicts numbers: of none there are metrics, for that."""
    evaluated = [record for record in records if record["metrics"] or record.get("not_evaluated")]
    return bool(evaluated) and all(
        not record["metrics"] and PREDICTS_NONE in record["not_evaluated"].values()
        for record in evaluated
    )


def stops_early(records: Records, selection: SelectionSettings) -> bool:
    """Whether ``patience`` rounds have passed without a better value.

    They have not after a round that was not evaluated, or where no round has a value.
    """
    if selection.patience is None or not records or not records[-1]["metrics"]:
        return False
    return len(records) - best_round(records, selection.metric) >= selection.patience
