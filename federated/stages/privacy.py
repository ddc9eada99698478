"""privacy: what each site is to release in a run, planned before its first round."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from federated.privacy import Private
from federated.privacy.patients import patient_warnings
from federated.run.folder import RunFolder
from federated.stages.entering import refuse_evaluation
from federated.stages.worker import worker_context
from federated.training.optimization import local_work


def plan_site(run: Path, site: str) -> dict[str, Any]:
    """What a site is to release in every round, and what a person should know of that.

    Raises:
        ConsiliumError: the privacy that is asked for cannot be reached, or a budget does not allow
            that the site's cases are evaluated.
    """
    refuse_evaluation(run, site)
    folder = RunFolder(run)
    experiment = folder.experiment()
    privacy = experiment.privacy
    assert isinstance(privacy, Private)
    cases = folder.case_counts().cases(site, "train")
    steps = local_work(cases, experiment.training, batch_norm=False).steps
    release = privacy.plan(cases, steps, experiment.training.batch_size, experiment.rounds)
    warnings = privacy.warnings(cases, len(folder.sites()))
    patients = worker_context(run).cases.patients(site, "train")
    planned = [
        privacy.of_round(release, n + 1, experiment.rounds) for n in range(experiment.rounds)
    ]
    warnings += patient_warnings(privacy, site, planned, patients)
    return {**asdict(release), "warnings": warnings}
