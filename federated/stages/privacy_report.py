"""What sites have spent, from the holder's ledger: for a run's rounds and for its summary."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from math import inf, isinf
from typing import Any

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.privacy import Private
from federated.privacy.composition import spent
from federated.privacy.kept_heads import keep_head
from federated.privacy.patients import most_of_one
from federated.privacy.spending import NO_MECHANISM, SEEDED, Spending
from federated.rounds.participation import POOLED
from federated.run.told_privacy import most_report, read_told
from federated.site.holder import holder_ledger
from federated.site.releases import ReleaseStore
from federated.stages.coordinator import Coordinator
from federated.stages.entering import training_records
from federated.stages.report import most_epsilon
from federated.stages.site import Site, SiteCall, open_site
from federated.stages.worker import held_cases

EPSILONS = ("epsilon", "epsilon_per_round", "epsilon_ledger", "epsilon_patient")


def spent_so_far(site: Site) -> float | None:
    """The ε of all that a site has released in a run, by RDP, which is quick and an upper bound.

    It is ``None`` where there is no guarantee.
    """
    privacy = site.run.experiment.privacy
    assert isinstance(privacy, Private)
    own = _as_simulated(_own(site))
    return _finite(spent(own, privacy.unit or "record", privacy.delta, "rdp"))


def _own(site: Site) -> list[Spending]:
    """What a site has released of its training cases in a run."""
    ledger = holder_ledger(site.run.experiment)
    entries = ledger.spendings(site.run.run_id)
    return [entry for entry in entries if entry.trains and entry.site in (site.name, POOLED)]


def _as_simulated(own: list[Spending]) -> list[Spending]:
    """The entries as if their noise came from a secret, which a simulation stands for."""
    return [replace(entry, mechanism=entry.mechanism.removesuffix(SEEDED)) for entry in own]


def _finite(epsilon: float) -> float | None:
    return None if isinf(epsilon) else epsilon


def report_site(call: SiteCall) -> dict[str, Any]:
    """What the holder's ledger says of a site in a run, for the run's summary.

    ``epsilon`` is composed over the run. ``epsilon_ledger`` is composed over everything that was
    ever released of any of the site's training cases: it is that of the case that has spent most
    or, with privacy for sites, that of the site. ``epsilon_per_round`` is that of the round with
    the least noise. ``epsilon_patient`` is that over the run of a patient who has
    ``cases_of_one_patient`` cases, the most that any has. ``None`` stands for "no guarantee", and
    for a number that nobody knows. With ``privacy.noise=seeded`` the ε of the run are those that
    secret noise would have had; in the ledger such a release has no bound. The head is kept in the
    site's home too. Which records a release touched is not told: a digest of them would let a guess
    of them be checked.
    """
    return _report(open_site(call))


def _report(site: Site) -> dict[str, Any]:
    experiment = site.run.experiment
    privacy, ledger = experiment.privacy, holder_ledger(experiment)
    own = _own(site)
    report: dict[str, Any] = {"holder": ledger.holder, **_cases_of_one(site)}
    if isinstance(privacy, Private):
        simulated, most = _as_simulated(own), report["cases_of_one_patient"]
        report |= _private_report(site, privacy, simulated, most)
    else:
        report |= dict.fromkeys(EPSILONS)
    head = ledger.last()
    keep_head(ledger.path, head, site.run.run_id)
    return {
        **report,
        "steps": sum(spending.steps for spending in own),
        "releases": [_told(spending) for spending in own],
        "head": asdict(head),
    }


def tell_privacy(call: SiteCall) -> None:
    """Tell the coordinator, at a run's end, what :func:`report_site` gives.

    Where the site's policy does not let it send more in the run, nothing is told.
    """
    site = open_site(call)
    body = json.dumps(_report(site)).encode()
    with suppress(RefusalError):
        site.to_coordinator(site.topic(0), kinds.PRIVACY_REPORT, body)


def receive_reports(coordinator: Coordinator) -> dict[str, dict[str, Any] | None]:
    """What each site tells of its privacy; ``None`` where that is missing or refused.

    What is refused has a line in the audit log, ``unreported``.
    """
    run, topic = coordinator.run, coordinator.topic(0)
    experiment = run.experiment
    most = most_report(experiment.rounds, topic.attempt)
    private = isinstance(experiment.privacy, Private)
    found: dict[str, dict[str, Any] | None] = {}
    for site in run.sites:
        try:
            message = coordinator.mailbox.receive(topic, kinds.PRIVACY_REPORT, site, most)
            spendable = most_epsilon(run, site, topic.attempt)
            found[site] = read_told(message.body, site, run.run_id, private, spendable)
        except ConsiliumError as error:
            found[site] = None
            coordinator.mailbox.audit.add(
                "unreported", run=run.run_id, round=0, sender=site, said=str(error)
            )
    return found


def _told(spending: Spending) -> dict[str, Any]:
    return {key: value for key, value in asdict(spending).items() if key != "records"}


def _cases_of_one(site: Site) -> dict[str, int | None]:
    patients = held_cases(site).patients(site.name, "train")
    return {"cases_of_one_patient": most_of_one(patients)}


def _private_report(
    site: Site, privacy: Private, own: list[Spending], most: int | None
) -> dict[str, Any]:
    unit, delta, accountant = privacy.unit or "record", privacy.delta, privacy.accountant
    ledger = holder_ledger(site.run.experiment)
    records = training_records(site)
    least = sorted(own, key=lambda spending: spending.noise_multiplier)[:1]
    budgets = [budget for budget in ledger.budgets(records) if budget.unit == unit]
    patient = spent(own, "record", delta, accountant, most) if most else inf
    release = site.run.planned[site.name]
    return {
        "epsilon": _finite(spent(own, unit, delta, accountant)),
        "epsilon_per_round": _finite(spent(least, unit, delta, accountant)),
        "epsilon_ledger": _finite(ledger.histories(records, unit).worst(delta, accountant)),
        "epsilon_patient": _finite(patient),
        "budget": min((b.epsilon for b in budgets if b.epsilon < inf), default=None),
        "noise_multiplier": release.noise_multiplier,
        "sampling_rate": release.sampling_rate,
    }


def summarise_privacy(
    experiment: Experiment, per_site: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any]:
    """The ``privacy`` part of a run's summary; its ε are those of the site that has spent most.

    ``None`` stands for "no guarantee", and for what nobody knows, as where a site has told nothing
    that counts; ``unreported`` names these sites. ``mechanism`` is the name in the ledger, where a
    run without privacy is a release without a bound.
    """
    privacy = experiment.privacy
    unreported = [site for site, report in per_site.items() if report is None]
    if not isinstance(privacy, Private):
        empty = ("unit", "delta", *EPSILONS, "accountant")
        said = "no guarantee: every update is in the ledger as a release without a bound"
        name = {"name": privacy.name, "mechanism": NO_MECHANISM, "guarantee": said}
        return {**name, **dict.fromkeys(empty), "per_site": {}, "unreported": unreported}
    most = {}
    for key in EPSILONS:
        found = [report[key] for report in per_site.values() if report]
        most[key] = None if unreported or None in found else max(found)
    kept = (
        *("epsilon", "epsilon_ledger", "budget", "noise_multiplier", "sampling_rate", "steps"),
        *("cases_of_one_patient", "epsilon_patient"),
    )
    return {
        "name": privacy.name,
        "mechanism": privacy.mechanism,
        "unit": privacy.unit,
        "delta": privacy.delta,
        **most,
        "accountant": privacy.accountant,
        "noise": privacy.noise,
        "missing": privacy.allowed_missing,
        "per_site": {
            site: {key: report[key] if report else None for key in kept}
            for site, report in per_site.items()
        },
        "unreported": unreported,
    }


def close_releases(call: SiteCall) -> None:
    """Remove, at a site, what was stored of a run that is over."""
    site = open_site(call)
    ReleaseStore(site.store.releases, site.home.root).close()
