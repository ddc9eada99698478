"""What sites have spent, from their ledgers: for a run's rounds and for its summary."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isinf
from pathlib import Path
from typing import Any

from federated.configuration.experiment import Experiment
from federated.privacy import DistributedSiteLevel, Private
from federated.privacy.ledger import Ledger, spent
from federated.private_release import planned_release, site_ledger
from federated.run_folder import RunFolder
from federated.worker import worker_context


def spent_so_far(folder: RunFolder, site: str) -> float | None:
    """ε of all that a site has released in a run, by RDP, which is quick and an upper bound.

    ``None`` where there is no guarantee.
    """
    privacy, ledger = _privacy_and_ledger(folder, site)
    return _finite(
        spent(ledger.spendings(folder.run_id), privacy.unit or "record", privacy.delta, "rdp")
    )


def _finite(epsilon: float) -> float | None:
    return None if isinf(epsilon) else epsilon


def report_site(run: Path, site: str) -> dict[str, Any]:
    """What a site's ledger says of a run, for the run's summary.

    ``epsilon`` is composed over the run, ``epsilon_ledger`` over everything that was ever released
    of the site's training cases, ``epsilon_per_round`` that of the round with the least noise;
    ``None`` stands for "no guarantee".
    """
    folder = RunFolder(run)
    privacy, ledger = _privacy_and_ledger(folder, site)
    unit, delta, accountant = privacy.unit or "record", privacy.delta, privacy.accountant
    release = planned_release(folder, site)
    own = ledger.spendings(folder.run_id)
    least = sorted(own, key=lambda spending: spending.noise_multiplier)[:1]
    budget = ledger.budgets().get(unit)
    return {
        **{
            key: _finite(spent(spendings, unit, delta, accountant))
            for key, spendings in {
                "epsilon": own,
                "epsilon_per_round": least,
                "epsilon_ledger": ledger.spendings(),
            }.items()
        },
        "budget": budget.epsilon if budget else None,
        "noise_multiplier": release.noise_multiplier,
        "sampling_rate": release.sampling_rate,
        "steps": sum(spending.steps for spending in own),
        "releases": [asdict(spending) for spending in own],
        "head": asdict(ledger.head()),
    }


def summarise_privacy(
    experiment: Experiment, per_site: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The ``privacy`` part of a run's summary; its ε are those of the site that has spent most.

    ``None`` stands for "no guarantee".
    """
    privacy = experiment.privacy
    if not isinstance(privacy, Private):
        empty = ("unit", "delta", "epsilon", "epsilon_per_round", "epsilon_ledger", "accountant")
        return {"name": privacy.name, **dict.fromkeys(empty), "per_site": {}}
    most = {}
    for key in ("epsilon", "epsilon_per_round", "epsilon_ledger"):
        found = [report[key] for report in per_site.values()]
        most[key] = None if None in found else max(found)
    kept = ("epsilon", "epsilon_ledger", "budget", "noise_multiplier", "sampling_rate", "steps")
    return {
        "name": privacy.name,
        "unit": privacy.unit,
        "delta": privacy.delta,
        **most,
        "accountant": privacy.accountant,
        "noise": privacy.noise,
        "missing": privacy.missing if isinstance(privacy, DistributedSiteLevel) else 0,
        "per_site": {site: {key: report[key] for key in kept} for site, report in per_site.items()},
    }


def _privacy_and_ledger(folder: RunFolder, site: str) -> tuple[Private, Ledger]:
    context = worker_context(folder.root)
    privacy = context.experiment.privacy
    assert isinstance(privacy, Private)
    return privacy, site_ledger(context.experiment, folder.data().md5, context.partition, site)
