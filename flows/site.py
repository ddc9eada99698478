"""What a person at a site reads and decides, for the command line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError
from federated.exchange.identity import PublicIdentity
from federated.exchange.plan import RunPlan
from federated.secrets.home import consilium_home
from federated.settings.sections import StatisticsSettings
from federated.site.approvals import Decision, decide, proposals
from federated.site.home import SiteHome
from federated.weights.planned import planned_layout


def open_home(home: Path | None) -> SiteHome:
    """A site's home: the folder that is named, or ``CONSILIUM_HOME``.

    Raises:
        ConsiliumError: it is not the home of a site.
    """
    root = (home or consilium_home()).resolve()
    of_consortium = sorted(path.parent for path in root.glob("site/*/coordinator.json"))
    if home is None and len(of_consortium) == 1:
        return SiteHome(of_consortium[0])
    if not (root / "coordinator.json").is_file():
        raise ConsiliumError(
            f"{root} is no site's home: it has no coordinator.json. Name a home with --home; those "
            "of a simulated run are RUN/sites/SITE below the folder of the runs."
        )
    return SiteHome(root)


def decision_line(home: SiteHome, run_id: str, decision: Decision) -> str:
    """Decide on what is proposed to a site; return what to tell a person.

    Raises:
        ConsiliumError: nothing of that run waits for a decision.
    """
    told = decide(home, run_id, decision)
    name = told["plan"]["experiment"]["name"]
    after = {
        "approved": "It takes part now if the coordinator still waits, or when the run is resumed.",
        "refused": "It does not take part.",
    }
    return f"{home.name}: run {run_id} of {name} is {decision}. {after[decision]}"


def proposal_lines(home: SiteHome) -> Iterator[str]:
    """Lines with what was proposed to a site, and what a person has decided of it."""
    found = proposals(home)
    if not found:
        yield f"{home.name}: nothing waits for a decision"
    for run_id, told in found.items():
        yield f"run {run_id}: {told['decision'] or 'waits for a decision'}"
        yield from (f"  {line}" for line in _in_words(home, told["plan"]))


def _told_of(experiment: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is to be told of the evaluation, and what of it is kept with the model."""
    settings = experiment["evaluation"]
    yield "share", settings["share"]
    if "calibration" in settings:
        yield "calibration", settings["calibration"]
    if settings.get("conformal"):
        yield "conformal.alpha", f"{settings['conformal']['alpha']:g}"
    for name, bounds in settings.get("subgroups", {}).items():
        yield f"subgroups.{name}", "[" + ", ".join(map(str, bounds)) + "]"
    if "uncertainty" in settings:
        yield "uncertainty", settings["uncertainty"]


def _in_words(home: SiteHome, plan: dict[str, Any]) -> Iterator[str]:
    experiment = plan["experiment"]
    privacy = {key: value for key, value in experiment["privacy"].items() if value is not None}
    yield f"experiment {experiment['name']} on {experiment['data']['dataset']}"
    if plan["purpose"] == "statistics":
        settings = {**StatisticsSettings().model_dump(), **experiment.get("statistics", {})}
        yield "no training: counts of training cases for statistics, over all sites"
        told = ", ".join(f"{key}={value}" for key, value in settings.items() if value is not None)
        yield told + ("" if settings["epsilon"] else "; without noise, and so without an ε")
    else:
        yield f"{experiment['rounds']} rounds, strategy {experiment['strategy']['name']}"
        yield "privacy " + ", ".join(f"{key}={value}" for key, value in privacy.items())
        yield ", ".join(f"evaluation.{key}={value}" for key, value in _told_of(experiment))
        resolved = RunPlan.from_bytes(json.dumps(plan).encode()).experiment
        yield f"a model of {planned_layout(resolved).size} values"
    yield (
        f"protection {experiment['protection']['name']}; fewest sites in a sum: "
        f"{experiment['protection'].get('min_sites', 1)}"
    )
    own = plan["counts"].get(home.name, {})
    cases = ", ".join(f"{split} {count}" for split, count in own.items())
    # Of a proposal to sites of a consortium: nothing has been read for it yet.
    unsaid = "counted once a person has approved, by what its own validation leaves"
    yield f"cases of this site: {cases or unsaid}"
    yield "with, to be compared by telephone:"
    key_here = home.identity().public.key.hex()
    for name, key in plan["participants"].items():
        mark = " (this site's own key)" if key == key_here else ""
        yield f"  {name} {PublicIdentity(name, bytes.fromhex(key)).fingerprint}{mark}"
    yield f"program {plan['code'][:16]}"
