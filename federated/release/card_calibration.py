"""What a model card says of calibration: how far the model's probabilities can be believed."""

from federated.learning import TASKS
from federated.release.card_blocks import NOT_RUN, Block, Table, Text, plain, plains
from federated.report.calibration_part import calibration_part
from federated.report.evaluation_part import metric_rows
from federated.report.intervals import Intervals
from federated.report.values import Numbers, RunValues

# Metrics of classification that say how far probabilities can be believed.
OF_CALIBRATION = ("ece", "brier", "nll", "loss")


def calibration_blocks(run: RunValues, numbers: Numbers, intervals: Intervals) -> list[Block]:
    """The blocks of the card's section on calibration."""
    task = run.info.task
    rows = [
        plains((row["name"], row["test"], row["interval"] or "–", row["val"]))
        for row, name in zip(
            metric_rows(run, numbers, intervals), _metrics_told(run, numbers), strict=True
        )
        if name in OF_CALIBRATION and name != "loss"
    ]
    if not rows:
        return [Text(f"{NOT_RUN} No metric of calibration is known for {TASKS[task].goal}.")]
    heads = ("metric", "test", "95 % interval", "validation")
    return [
        Table("Calibration over the cases of all sites", heads, rows),
        *_calibrated(run, numbers),
    ]


def _calibrated(run: RunValues, numbers: Numbers) -> list[Block]:
    """What the run has fitted beside the network: its temperature, and its prediction sets."""
    part = calibration_part(run, numbers)
    if part is None:
        return [Text("Probabilities are the network's own.")]
    blocks: list[Block] = []
    if fitted := part["temperature"]:
        rows = [plains((row["name"], row["before"], row["after"])) for row in fitted["rows"]]
        heads: tuple[str, ...] = ("on test cases", "before", "after")
        blocks.append(Table("What the temperature changes", heads, rows))
        exact = float(numbers.at("calibration", "temperature", "temperature"))
        blocks.append(
            Text(
                "Probabilities that consilium predict writes are at the temperature "
                f"{exact:.6g}, fitted on {plain(fitted['cases'])} validation cases of "
                "all sites. The network's files alone, as ONNX, TorchScript and the bundle, give "
                "what comes before it: divide logits by it."
            )
        )
    if sets := part["sets"]:
        keys = ("name", "fitted_on", "cases", "coverage", "interval", "by_chance", "size")
        rows = [plains(tuple(row[key] for key in keys)) for row in sets["rows"]]
        heads = (
            *("site", "validation cases", "test cases", "coverage", "95 % interval", "by chance"),
            "mean size",
        )
        blocks.append(Table(f"Prediction sets, asked to cover {sets['asked']}", heads, rows))
        rows = [
            plains((row["name"], threshold, row["pooled"]))
            for row, threshold in zip(sets["rows"], _thresholds(run), strict=True)
        ]
        heads = ("site", "threshold", "coverage by the threshold of all sites")
        blocks.append(Table("Thresholds of the sets", heads, rows))
        blocks.append(
            Text(
                f"The sets were asked to cover {sets['asked']} of cases. What is promised "
                "is coverage of a site's cases in the mean over draws, by the threshold of its own "
                "validation cases, where both are exchangeable. The threshold of all sites "
                "together promises nothing for one of them. By chance: where a "
                "coverage lies in 95 % of draws. A set has the classes whose probability before "
                "the temperature is at least the threshold."
                + (f" Outside of chance: {sets['outside']}." if sets["outside"] else "")
                + (
                    " The round was chosen by the same validation cases: the promise holds nearly, "
                    "and not exactly."
                    if part["chosen"]
                    else ""
                )
            )
        )
    return blocks


def _thresholds(run: RunValues) -> list[str]:
    """The thresholds of prediction sets, of all sites together and of each, to full precision."""
    told = run.summary["calibration"]["conformal"]
    own = [told["sites"][site]["own"] for site in run.summary["sites"] if site in told["sites"]]
    return [repr(float(one["threshold"])) for one in (told["pooled"], *own)]


def _metrics_told(run: RunValues, numbers: Numbers) -> list[str]:
    """The names of the metrics that a row is made of, in the same order."""
    return [
        metric.name
        for metric in TASKS[run.info.task].metrics
        if any(numbers.at("metrics", split, metric.name) is not None for split in ("test", "val"))
    ]
