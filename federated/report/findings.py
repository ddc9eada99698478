"""What a page says of who was not there, and of what validation has found."""

from typing import Any

from federated.report.values import RunValues, count_of


def absences(run: RunValues) -> list[str]:
    """Who was not there, and why, as far as anybody has told."""
    summary = run.summary
    said = [
        ("absent", "did not take part"),
        ("not_evaluated", "is in none of the metrics"),
        ("no_own_model", "has handed over no model of its own"),
    ]
    return [
        f"{site} {what}: {reason}"
        for key, what in said
        for site, reason in (summary.get(key) or {}).items()
    ]


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
    return {
        "known": True,
        "sites": len(report.get("sites", ())),
        "rows": rows,
        "excluded": list(report.get("excluded_sites", ())),
        "dropped": [(site, _counted(n, least)) for site, n in dropped.items()],
    }


def _counted(number: int, least: int) -> str:
    """A number of cases, unless it is a small one that is not to be told."""
    if not number:
        return "the site as a whole"
    return f"fewer than {least} cases" if number < least else count_of(number, "case")
