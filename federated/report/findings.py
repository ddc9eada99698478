"""What a page says of who was not there, of what validation has found, and of collapsed models."""

from collections.abc import Mapping
from typing import Any

from federated.report.values import MOST_LISTED, RunValues, count_of, is_number


def absences(run: RunValues) -> list[str]:
    """Who was not there, and why, as far as anybody has told."""
    summary = run.summary
    said = [
        ("absent", "did not take part"),
        ("not_evaluated", "is in none of the metrics"),
        ("no_own_model", "has handed over no model of its own"),
    ]
    lines = [
        f"{site} {what}: {reason}"
        for key, what in said
        for site, reason in (summary.get(key) or {}).items()
    ]
    more = len(lines) - MOST_LISTED
    if more > 0:
        where = "absent, not_evaluated and no_own_model of summary.json"
        lines[MOST_LISTED:] = [f"And {more} more, which are in {where}."]
    return lines


def collapsed(run: RunValues) -> list[str]:
    """A sentence where a model has only one answer to all test cases, or meets no true mask."""
    dice = run.summary["metrics"].get("test", {}).get("dice")
    if run.info.task == "segmentation" and is_number(dice) and dice == 0:
        return ["In no test case does what the model marks overlap with what is there (Dice 0)."]
    found = only_class(run.summary)
    if found is None or run.info.task != "classification":
        return []
    predicted, cases = found
    return [
        f"All {count_of(cases, 'test case')} are predicted as {run.info.classes[predicted]}, and "
        "none as any other class. By its answers the model tells no case from another, and its "
        "accuracy is the share of that class."
    ]


def only_class(summary: Mapping[str, Any]) -> tuple[int, int] | None:
    """The class that all test cases of a run are predicted as, and how many they are.

    ``None`` where they are not, are fewer than two, or where what is predicted is not told.
    """
    counts = (summary.get("confusion") or {}).get("test") or []
    of_predicted = [sum(column) for column in zip(*counts, strict=True)]
    there = [place for place, cases in enumerate(of_predicted) if cases]
    if len(of_predicted) < 2 or len(there) != 1 or of_predicted[there[0]] < 2:
        return None
    return there[0], of_predicted[there[0]]


def validation_part(run: RunValues) -> dict[str, Any]:
    """What validation found: rules and how many cases broke them, and never which."""
    report, least = run.validation, run.experiment.evaluation.min_count
    if report is None:
        return {"known": False, "rows": [], "excluded": [], "dropped": []}
    rows = [
        (site, str(rule.get("rule", "")), _counted(len(rule.get("where", ())), least))
        for site, rules in report.get("broken", {}).items()
        for rule in rules
    ]
    # The shared report of a private run, and those of older versions, do not name rules.
    known = {site for site, _, _ in rows}
    rows += [
        (site, "told in the site's own report", "")
        for site in report.get("failures", {})
        if site not in known
    ]
    dropped = {
        site: sum(n if isinstance(n, int) else len(n) for n in splits.values())
        for site, splits in (report.get("dropped") or report.get("dropped_cases") or {}).items()
    }
    excluded = list(report.get("excluded_sites", ()))
    more = max(len(rows), len(excluded), len(dropped)) > MOST_LISTED
    return {
        "known": True,
        "note": "The first are named here; all are in validation.json of the run." if more else "",
        "sites": len(report.get("sites", ())),
        "rows": rows[:MOST_LISTED],
        "excluded": excluded[:MOST_LISTED],
        "dropped": [(site, _counted(n, least)) for site, n in dropped.items()][:MOST_LISTED],
    }


def _counted(number: int, least: int) -> str:
    """A number of cases, unless it is a small one that is not to be told."""
    if not number:
        return "the site as a whole"
    return f"fewer than {least} cases" if number < least else count_of(number, "case")
