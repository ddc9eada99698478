"""fl-statistics: what the sites' cases are like, all together, before a model is trained.

A run of its own: it is proposed to the sites, whose policies decide on it, and its plan is signed.
count at every site → aggregate → what opens a sum, as in a round → collect → compare at every site.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from prefect import flow

import flows.run_log  # noqa: F401 - what Prefect keeps of it is for people
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.data.dataset import LocatedFile
from federated.errors import ConsiliumError
from federated.files import write_json, write_text
from federated.planning.fingerprint import Fingerprint
from federated.planning.heterogeneity import Distances
from federated.provenance import code_commit
from federated.rounds.statistics import groups_of, told_of
from federated.run.folder import RunFolder
from federated.run.runs import new_run
from federated.run.statistics_report import Statistics, noise_note, numbers_of, page_of
from federated.stages.coordinator import absence_lines
from federated.stages.ledger_migration import take_over
from federated.stages.named_sums import STATISTICS, refuse_thin
from federated.stages.secure_sum import digits_in
from federated.stages.statistics import (
    begin_statistics,
    modalities_of,
    rank_error_of,
    refuse_inexact,
)
from flows.beginning import Beginning, begin_parties, begin_simulated, of_parties, with_parties
from flows.going_on import goes_on_by, stating
from flows.graph import sum_up
from flows.prepare import PHANTOM_BANNER, Prepared, prepare, unvalidated
from flows.progress import counted, tell
from flows.secagg import exchange_keys, forgotten_secrets
from flows.site_stages import Run, at_every, call_site
from flows.threads import RUNNER
from flows.written import counted_task_runs
from tasks.keys import forget_key, key
from tasks.pool import leave, open_pool, worker_count
from tasks.statistics import ask, collect, compare, count, track_statistics
from tasks.track import end_tracking, start_tracking

# Below the folder of all runs: these have no rounds to go on with, and no model.
FOLDER = "statistics"
JSON, PAGE = "statistics.json", "statistics.md"


@flow(name="fl-statistics", flow_run_name="statistics-{experiment}", task_runner=RUNNER)
def fl_statistics(
    experiment: str,
    overrides: list[str] | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
) -> str:
    """Count the training cases of an experiment's sites, and report what they are like.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        overrides: ``section.key=value`` items.
        params: the parameter file.
        runs: the folder that holds all runs.

    Returns:
        The run's folder, with ``statistics.json`` and ``statistics.md``.

    Raises:
        ConsiliumError: something in the input cannot be used, or too few sites take part.
    """
    resolved = load_experiment(experiment, overrides or (), Path(params), plans=True)
    with counted_task_runs(), goes_on_by(stating(experiment, overrides or (), Path(params))):
        return str(run_statistics(resolved, Path(runs), Path(params)).folder.root)


@dataclass(frozen=True)
class StatisticsRun:
    """What a run for statistics has left: its folder, and what was counted of which sites.

    ``rank_error`` is by which part of the cases noise moves the rank of a median.
    """

    folder: RunFolder
    found: Fingerprint
    sites: list[str]
    rank_error: float


def run_statistics(
    experiment: Experiment,
    runs: Path,
    params: Path,
    prepared: Callable[[RunFolder], Prepared] | None = None,
) -> StatisticsRun:
    """Run statistics over the sites of an experiment, inside a flow.

    Args:
        experiment: the resolved experiment.
        runs: the folder that holds all runs.
        params: the parameter file, for ledgers of older versions.
        prepared: gives the data for the run's folder; they are prepared anew if it is left out.

    Raises:
        ConsiliumError: the data cannot be used, too few sites take part, or the sum is refused.
    """
    refuse_inexact(experiment)
    if of_parties(experiment):
        experiment = with_parties(experiment)
    folder = new_run(runs / FOLDER, experiment)
    tell(f"statistics {experiment.name}/{folder.run_id}")
    with open_pool(experiment) as pool:
        begun = _begin(experiment, folder, pool, runs, params, prepared)
        coordinator = begun.coordinator
        for line in absence_lines(coordinator.absent, "these statistics"):
            tell(line)
        begin_statistics(coordinator)
        calls = [call_site(coordinator, site) for site in coordinator.run.sites]
        unkeyed = key(pool, coordinator, calls)[1] if experiment.protection.keyed else {}
        mlflow_run_id = start_tracking(experiment, folder, begun.data, code_commit())
        status = "FAILED"
        try:
            run = Run(
                coordinator,
                begun.data,
                begun.info,
                pool,
                worker_count(experiment),
                mlflow_run_id,
                0.0,
                {},
                0,
                unkeyed,
            )
            summed = _sum_and_report(run)
            if experiment.protection.keyed:
                forget_key(pool, run.calls())
            leave(pool, run.calls())
            status = "FINISHED"
        except Exception:
            with suppress(Exception):
                leave(pool, calls)
            raise
        finally:
            files = [folder.root / JSON, folder.root / PAGE]
            end_tracking(mlflow_run_id, status, files, {"purpose": "statistics"})
    error = rank_error_of(coordinator, begun.info, summed.sites, summed.found)
    return StatisticsRun(folder, summed.found, summed.sites, error)


def _begin(
    experiment: Experiment,
    folder: RunFolder,
    pool: Executor,
    runs: Path,
    params: Path,
    prepared: Callable[[RunFolder], Prepared] | None,
) -> Beginning:
    """Have the sites take part in counting; see :func:`run_statistics` for what is handed over.

    Raises:
        ConsiliumError: the data cannot be used, or too few sites take part.
    """
    if of_parties(experiment):
        begun = begin_parties(experiment, folder, pool, "statistics")
        _say_what_is_told(experiment, begun.data)
        refuse_thin(experiment, folder.case_counts(), STATISTICS, folder.sites())
        return begun
    # What is planned from counts is not known yet, by which cases would be judged.
    make = unvalidated if experiment.planning.auto else prepare
    inputs = prepared(folder) if prepared else make(experiment, folder)
    _say_what_is_told(experiment, inputs.data)
    folder.write_inputs(experiment, inputs.data, inputs.excluded)
    experiment.protection.check(experiment.cohort(len(folder.sites())))
    refuse_thin(experiment, folder.case_counts(), STATISTICS, folder.sites())
    if said := take_over(experiment, inputs.data, inputs.dataset, runs, params):
        tell(said)
    return begin_simulated(folder, inputs, pool, "statistics")


def _say_what_is_told(experiment: Experiment, data: LocatedFile) -> None:
    if data.source == "phantom":
        tell(PHANTOM_BANNER.format(name=experiment.data.dataset))
    told = told_of(experiment)
    if told == "clear":
        tell(
            f"NOTE: protection.name={experiment.protection.name} hides nothing: the coordinator "
            "reads the counts of each site. Set protection.name=secagg_plus, rlwe_secagg or "
            "packed_bfv, or statistics.epsilon."
        )
    if told != "noised":
        tell(
            "NOTE: exact counts have no bound on privacy, and the ledger of each site says so; "
            "statistics.epsilon adds noise"
        )


def _sum_and_report(run: Run) -> "_Summed":
    """Have the sites' counts summed and compared, write the report, and track it."""
    masked = run.experiment.protection.masked
    with forgotten_secrets(run, run.sites) if masked else nullcontext():
        summed = _sum(run)
    experiment, info = run.experiment, run.info
    settings = experiment.statistics
    statistics = Statistics(
        experiment.name,
        run.data.source,
        experiment.protection.name,
        told_of(experiment),
        settings.epsilon,
        settings.delta,
        settings.min_count,
        summed.found,
        groups_of(info),
        modalities_of(experiment),
        {site: run.context.counts.cases(site, "train") for site in summed.sites},
        {**run.coordinator.absent, **summed.dropped},
        summed.distances,
        rank_error_of(run.coordinator, info, summed.sites, summed.found),
    )
    value = statistics.to_json()
    write_json(run.folder.root / JSON, value)
    write_text(run.folder.root / PAGE, page_of(value))
    if value["privacy"]:
        tell(f"NOTE: {noise_note(value).replace('**', '')}")
    track_statistics(run.mlflow_run_id, numbers_of(value))
    tell(f"counted {counted(summed.found.cases, 'case')} of {counted(len(summed.sites), 'site')}")
    return summed


@dataclass(frozen=True)
class _Summed:
    """What was counted, of which sites, why not of others, and how far each site is from all."""

    found: Fingerprint
    sites: list[str]
    dropped: dict[str, str]
    distances: dict[str, Distances | None]


def _sum(run: Run) -> _Summed:
    """Run the graph of a sum for statistics.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum, or it is
            lost or refused.
    """
    topic = ask(run.quoted)
    keys = exchange_keys(run, topic, run.sites)
    if keys.lost:
        raise ConsiliumError(f"There are no statistics: {keys.lost}")
    gone = keys.finished.dropped | dict(run.unkeyed)
    left = [site for site in run.sites if site not in gone]
    done = at_every(run, topic, count, left)
    sent = [site for site in left if site not in done.dropped]
    info = run.info
    length = digits_in(run.coordinator, topic, info)
    opened = sum_up(run, topic, sent, keys.roster, length, done.tasks)
    if opened.lost:
        raise ConsiliumError(
            f"The sum of the sites' counts is lost, and there are no statistics: {opened.lost}. "
            "Begin again without the site that is named."
        )
    found = collect(
        run.quoted, topic, info, opened.responded, opened.opener, wait_for=[opened.after]
    )
    calls = [run.call(site) for site in opened.responded]
    told = compare(run.pool, run.quoted, topic, calls)
    dropped = gone | done.dropped | opened.refused
    return _Summed(found, opened.responded, dropped, told)
