"""The figures of ROC curves and reliability, each with a text that says what it shows."""

from federated.report.charts import reliability_chart, roc_chart
from federated.report.curves import Reliability, reliabilities, roc_curves
from federated.report.drawing import Text, clean
from federated.report.figures import MOST_SMALL, Figure
from federated.report.values import RunValues, written


def roc_figures(run: RunValues) -> list[Figure]:
    """ROC curves on the test cases of all sites, of each class or label; the lowest AUC first."""
    if run.statistics is None or run.info.task not in ("classification", "multilabel"):
        return []
    curves = roc_curves(run.statistics, run.info.classes, run.info.task)
    curves.sort(key=lambda curve: curve.area)
    small = len(curves) > 1
    figures = []
    for number, curve in enumerate(curves[:MOST_SMALL]):
        span = (
            f" (95 % interval {curve.interval[0]:.3f} to {curve.interval[1]:.3f})"
            if curve.interval
            else ""
        )
        at = {
            percent: float(curve.true_positive[curve.false_positive <= percent / 100].max())
            for percent in (10, 20)
        }
        text = Text(
            f"roc-{number}",
            f"ROC curve of {clean(curve.name)}",
            f"The AUC is {curve.area:.3f}{span}. At false positives' rates of at most 10 % and "
            f"20 % the true positives' rates are {at[10]:.0%} and {at[20]:.0%}.",
        )
        said = span.replace("95 % interval ", "") if small else span
        caption = f"{clean(curve.name)}: AUC {curve.area:.3f}{said}"
        figures.append(Figure(roc_chart(text, curve, small), caption, small))
    return figures


def reliability_figures(run: RunValues) -> list[Figure]:
    """Reliability on the test cases of all sites."""
    if run.statistics is None or run.info.task not in ("classification", "multilabel"):
        return []
    found = reliabilities(run.statistics, run.info.classes, run.info.task)
    small = len(found) > 1
    figures = []
    for number, one in enumerate(found[:MOST_SMALL]):
        if not len(one.cases):
            continue
        which = f"of {clean(one.name)}" if one.name else "of the predicted class"
        text = Text(f"reliability-{number}", f"Reliability {which}", reliability_words(one))
        caption = (
            clean(one.name)
            if small
            else (
                "How often predictions of a probability come true; on the diagonal exactly as "
                "often. Bars are Wilson's 95 % intervals."
            )
        )
        figures.append(Figure(reliability_chart(text, one, small), caption, small))
    return figures


def reliability_words(found: Reliability) -> str:
    """What a figure of reliability shows, for who does not see it."""
    gap = found.confidence - found.share
    weighted = float((gap * found.cases).sum() / found.cases.sum())
    lean = "too high" if weighted > 0 else "too low" if weighted < 0 else "off"
    return (
        f"Probabilities are {lean} by {written(abs(weighted))} in the mean. "
        + "; ".join(
            f"of {n} cases with a mean probability of {c:.2f}, {s:.0%} came true"
            for n, c, s in zip(found.cases.tolist(), found.confidence, found.share, strict=True)
        )
        + "."
    )
