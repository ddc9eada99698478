"""What a page says of privacy: what was spent, and what that means."""

from collections.abc import Mapping
from math import inf
from typing import Any

from markupsafe import Markup

from federated.report.cost_figures import attack_figure, privacy_bars
from federated.report.epsilon import grade, meaning_of
from federated.report.figures import few_names
from federated.report.guarantee import guarantee_of
from federated.report.values import (
    MOST_LISTED,
    NONE,
    Numbers,
    RunValues,
    is_number,
    more_of,
    share_of,
    small_number,
)


def privacy_part(run: RunValues, numbers: Numbers) -> dict[str, Any] | None:
    """What was spent of privacy, and what that means; ``None`` where there is none."""
    told = run.summary["privacy"]
    if not run.private:
        return None
    per_site = told.get("per_site", {})
    heads = {
        "epsilon": "ε, this run",
        "epsilon_ledger": "ε, all runs",
        "budget": "budget",
        "noise_multiplier": "noise multiplier",
        "sampling_rate": "sampling rate",
    }
    epsilon, delta = told["epsilon"], told["delta"]
    shown = set(sorted(per_site, key=lambda site: -_largest(per_site[site]))[:MOST_LISTED])
    part = {
        "unit": told["unit"],
        "thing": {"record": "training case", "site": "site"}.get(told["unit"], told["unit"]),
        "epsilon": numbers("privacy", "epsilon", form=".3g"),
        "known": is_number(epsilon),
        "seeded": told.get("noise") == "seeded",
        "delta": small_number(delta),
        "odds_of_delta": _one_in(delta),
        "accountant": told["accountant"],
        **(_meaning(epsilon, delta) if is_number(epsilon) else {}),
        "patient": _of_a_patient(told, numbers),
        "missing": told.get("missing"),
        "in_sum": run.experiment.privacy.noise_in_sum,
        "heads": list(heads.values()),
        "rows": [
            {"name": site, "cells": [_spent(site, key, numbers) for key in heads]}
            for site in per_site
            if site in shown
        ],
        "note": more_of(len(per_site), "with the largest ε", "privacy.per_site of summary.json"),
        "unreported": few_names(told.get("unreported", ())),
        "bars": privacy_bars(run),
        "figure": attack_figure(epsilon, delta) if is_number(epsilon) else None,
    }
    return part | {"words": guarantee_of(part)}


def _largest(own: Mapping[str, Any] | None) -> float:
    """The ε by which a site has its place in a table of few: one without a bound comes first."""
    spent = (own or {}).get("epsilon")
    return spent if is_number(spent) else inf


def _one_in(delta: float) -> str:
    """One over δ, for a person."""
    if delta < 1e-15:
        return "more than 10¹⁵"
    return f"{1 / delta:,.0f}".replace(",", "\u202f")


def _spent(site: str, key: str, numbers: Numbers) -> Markup | str:
    """A number of a site's privacy; ``None`` is no bound where the site has told of it at all."""
    path = ("privacy", "per_site", site)
    if key.startswith("epsilon") and not is_number(numbers.at(*path, key)):
        return NONE if numbers.at(*path, "steps") is None else "no bound"
    return numbers(*path, key, form=".3g")


def _of_a_patient(told: Mapping[str, Any], numbers: Numbers) -> list[Markup | str]:
    """What a guarantee for cases is for a patient, who may have several."""
    if told["unit"] != "record":
        return []
    counts = [own.get("cases_of_one_patient") if own else None for own in told["per_site"].values()]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return [
            "The unit is a case. Not every site's data say which cases are of one patient, so no "
            "ε can be stated for a patient; it is larger for whoever has several cases."
        ]
    if max(known) == 1:
        return ["The unit is a case, and no patient has more than one training case."]
    said = Markup(
        "The unit is a case. A patient has up to {} training cases here; for such a patient ε is "
        "{}."
    )
    return [said.format(max(known), numbers("privacy", "epsilon_patient", form=".3g"))]


def _meaning(epsilon: float, delta: float) -> dict[str, Any]:
    """What a guarantee bounds, in words."""
    known = meaning_of(epsilon, delta)
    odds = f"= {known.odds:.3g}" if known.odds < 1000 else f"= {known.odds:.0f}"
    return {
        "odds": odds if known.odds < 1e6 else "> 1 000 000",
        "recognised": share_of(known.recognised),
        "guess": share_of(known.guess),
        "loose": known.guess > 0.95,
        "grade": grade(epsilon),
    }
