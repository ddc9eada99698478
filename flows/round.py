"""fl-round: the rounds of one experiment, each a graph of tasks.

``graph.py`` has the graph; this module has the beginning and the end of a run: data, model,
registry.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
from prefect import flow

import flows.run_log  # noqa: F401 - what Prefect keeps of it is for people
from federated.calibration.of_model import ModelCalibration
from federated.configuration.differences import overrides_between
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.data.load import known_info
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.learning.evaluation import PREDICTS_NONE
from federated.provenance import code_commit
from federated.run.final_record import final_numbers
from federated.run.folder import RunFolder
from federated.run.memory import peak_rss_mb
from federated.run.prepared import PreparedFolder
from federated.run.record_file import read_record
from federated.run.runs import point_latest, refuse_older_run, worked_on
from federated.run.selection import (
    kept_round,
    metric_value,
    metric_value_of,
    predicts_nothing,
    stops_early,
)
from federated.run.summary import RunFacts, summarise
from federated.run.update_files import read_state
from federated.stages.begin import write_initial_state
from federated.stages.coordinator import Coordinator, absence_lines, end_run
from federated.stages.ledger_migration import take_over
from federated.stages.named_sums import EVALUATION, refuse_thin
from federated.stages.privacy_report import summarise_privacy
from federated.training.optimization import trained_parameters
from federated.weights.build import model_header, new_model
from federated.weights.model_file import save_model
from federated.weights.transfer import load_pretrained
from flows.absence import absence_of
from flows.beginning import Beginning, begin_parties, begin_simulated, of_parties, with_parties
from flows.budget_events import tell_if_low, tell_if_spent
from flows.final_evaluation import final_evaluation
from flows.going_on import goes_on_by, resuming
from flows.graph import RoundEnd, run_round
from flows.overlap import order_of_rounds, why_in_turn
from flows.pausing import wait_while_paused
from flows.planning import planned
from flows.prepare import PHANTOM_BANNER, Prepared, prepare, take_prepared
from flows.progress import begins, counted, tell
from flows.request import RunRequest
from flows.server import let_training_go_first
from flows.site_stages import Run, call_site
from flows.tags import tag_flow_run
from flows.threads import RUNNER
from flows.written import counted_task_runs
from tasks.describe import describe, links_of
from tasks.described import headline, tags_of
from tasks.keys import forget_key, key
from tasks.overlays import overlays
from tasks.own_models import own_models
from tasks.pool import finished, leave, open_pool, warm_up, worker_count
from tasks.privacy import close, report_privacy
from tasks.register import register, register_sites
from tasks.report import REPORT, report
from tasks.sensitivity import sensitivity
from tasks.track import MOST_TRACKED, end_tracking, start_tracking, track_privacy

KEPT_IN_MLFLOW = (
    *("summary.json", "config.json", "partition.json", "validation.json", "transfer.json"),
    *("planned.json", "data_docs", "privacy.json", "ledger", "overlays", "sensitive_layers.png"),
    REPORT,
)


@flow(
    name="fl-round",
    flow_run_name="{experiment}",
    task_runner=RUNNER,
)
def fl_round(
    experiment: str,
    overrides: list[str] | None = None,
    rounds: int | None = None,
    resume: str | None = None,
    prepared: str | None = None,
    params: str = "params.yaml",
    runs: str = "runs",
    register_model: bool = True,
) -> str:
    """Run the rounds of an experiment, or go on with a run that was stopped.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        overrides: ``section.key=value`` items.
        rounds: how many rounds in all, instead of the experiment's own number.
        resume: a run id, or ``latest``; the run's own configuration is used.
        prepared: a folder that fl-prepare or DVC made, instead of preparing the data anew.
        params: the parameter file.
        runs: the folder that holds all runs.
        register_model: whether the model becomes a version in MLflow's registry.

    Returns:
        The run's folder.

    Raises:
        ConsiliumError: something in the input cannot be used.
    """
    began = _began()
    given = Path(prepared) if prepared else None
    request = RunRequest(
        experiment, overrides or (), rounds, resume, given, Path(params), Path(runs)
    )
    folder, resolved = request.open()
    tell(f"run {experiment}/{folder.run_id}")
    with counted_task_runs(), worked_on(folder):
        return _work_on(folder, resolved, request, began, register_model)


def _work_on(
    folder: RunFolder, resolved: Experiment, request: RunRequest, began: float, register_model: bool
) -> str:
    """Run the rounds of a run that are not done yet, and return its folder."""
    experiment, given, params = request.experiment, request.prepared, request.params
    if (
        request.resume is not None
        and folder.summary_path.is_file()
        and folder.done_rounds() >= resolved.rounds
    ):
        tell(f"done: {counted(folder.done_rounds(), 'round')}; ask for more with --rounds")
        return str(folder.root)
    refuse_older_run(folder)
    _refuse_fewer(folder, resolved)
    going_on = resuming(experiment, folder.run_id, request.runs)
    with goes_on_by(going_on):
        if of_parties(resolved):
            resolved = with_parties(resolved)
        resolved = planned(resolved, folder, request.runs, params, given)
    workers = worker_count(resolved)
    # Without Prefect tags: for a task with tags the server is asked for a concurrency slot first,
    # which made some rounds wait two seconds.
    with goes_on_by(going_on), open_pool(resolved) as pool:
        warming = warm_up(pool, workers)
        begun, data_seconds = _begun(resolved, folder, given, params, pool)
        coordinator = begun.coordinator
        commit = code_commit()
        mlflow_run_id = start_tracking(resolved, folder, begun.data, commit)
        tag_flow_run(tags_of(resolved, begun.data.source))
        point_latest(folder)
        begins("waiting for the worker processes")
        finished(warming)
        unkeyed = _agree_on_key(pool, coordinator) if resolved.protection.keyed else {}
        startup = {"orchestration": time.time() - began - data_seconds, "data": data_seconds}
        done = folder.done_rounds()
        in_turn = why_in_turn(resolved, len(coordinator.run.sites))
        tell(order_of_rounds(in_turn))
        run = Run(
            coordinator,
            begun.data,
            begun.info,
            pool,
            workers,
            mlflow_run_id,
            began,
            startup,
            done,
            unkeyed,
            links_of(folder.root, mlflow_run_id),
            in_turn is None,
        )
        try:
            let_training_go_first()
            ended, absence = RoundEnd(time.time()), absence_of(run)
            for round_number in range(done + 1, resolved.rounds + 1):
                if stops_early(coordinator.records(), resolved.selection):
                    chosen = resolved.selection
                    tell(f"stopped early: no better {chosen.metric} in {chosen.patience} rounds")
                    break
                if not ended.begun and wait_while_paused(folder):
                    # The time in which it waited for a person is no round's.
                    ended = replace(ended, at=time.time())
                if absence:
                    absence.wait()
                ended = run_round(run, round_number, ended)
                if absence:
                    selected = run.context.selected(round_number)
                    named = f"{resolved.name} {folder.run_id}"
                    absence.note(coordinator.records()[-1], selected, named)
            _finish(run, commit, register_model, _overrides(folder, experiment, params))
            if resolved.protection.keyed:
                forget_key(pool, run.calls())
            leave(pool, run.calls())
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            with suppress(Exception):
                # Not as a task: Prefect itself may be what failed.
                end_tracking.fn(mlflow_run_id, status, [])
            if isinstance(error, Exception):
                # This attempt ends here; `consilium resume` begins another one.
                with suppress(Exception):
                    leave(pool, run.calls())
            raise
    return str(folder.root)


def _refuse_fewer(folder: RunFolder, resolved: Experiment) -> None:
    """Refuse to end a run before a round of which sites may know that it is done.

    Raises:
        ConsiliumError: the sum of such a round is done, and the run is to have fewer rounds.
    """
    number = folder.done_rounds() + 1
    if resolved.rounds < number and folder.summed_path(number).is_file():
        raise ConsiliumError(
            f"Run {folder.run_id} cannot end with {counted(resolved.rounds, 'round')}: the sum of "
            f"round {number} is done, and sites may train in the next one already. All that is "
            f"left of round {number} is its evaluation: resume the run with --rounds {number}, or "
            "more."
        )


def _agree_on_key(pool: Executor, coordinator: Coordinator) -> dict[str, str]:
    """Have the sites come to one key; return which of them have none, and why."""
    begins("having the sites agree on a key")
    calls = [call_site(coordinator, site) for site in coordinator.run.sites]
    public, unkeyed = key(pool, coordinator, calls)
    tell(f"key of the sites: {public.fingerprint}")
    for site, why in unkeyed.items():
        tell(f"{site} has no key and drops out of every round until the run is resumed: {why}")
    return unkeyed


def _announce(coordinator: Coordinator, warnings: Mapping[str, Sequence[str]]) -> None:
    """Tell how much noise sites add, and what a person should know of that."""
    noises = [release.noise_multiplier for release in coordinator.run.planned.values()]
    span = f"{min(noises):.3g}" if len(set(noises)) == 1 else f"{min(noises):.3g}-{max(noises):.3g}"
    privacy = coordinator.run.experiment.privacy
    tell(f"privacy for each {privacy.unit}: {privacy.name} with noise multiplier {span}")
    for warning in {warning: None for told in warnings.values() for warning in told}:
        tell(f"warning: {warning}")


def _began() -> float:
    """When this run's process started or, inside a process that is older than a minute, now."""
    process_started = psutil.Process().create_time()
    return process_started if time.time() - process_started < 60 else time.time()


def _begun(
    experiment: Experiment,
    folder: RunFolder,
    prepared: Path | None,
    params: Path,
    pool: Executor,
) -> tuple[Beginning, float]:
    """Have the sites take part with what is prepared for them, which took so many seconds.

    From then on each has its own cases, and nothing here holds those of all to the end of the run.
    """
    started = time.time()
    inputs = None if of_parties(experiment) else _inputs(experiment, folder, prepared, params)
    seconds = time.time() - started
    return _begin(experiment, folder, inputs, pool), seconds


def _inputs(
    experiment: Experiment,
    folder: RunFolder,
    prepared: Path | None,
    params: Path,
) -> Prepared:
    """Prepare the data or take what is prepared.

    Ledgers of older versions are taken over before anything is entered.
    """
    # Also of a run that broke off in its first round: a site may have sent something of it.
    begun_with = folder.data() if folder.begun() else None
    if prepared:
        inputs = take_prepared(experiment, PreparedFolder(prepared), folder, begun_with)
    else:
        inputs = prepare(experiment, folder, begun_with)
    if inputs.data.source == "phantom":
        tell(PHANTOM_BANNER.format(name=experiment.data.dataset))
    for site in inputs.excluded:
        tell(f"{site} is excluded: its data fail validation, see {folder.root}/validation.json")
    folder.write_inputs(experiment, inputs.data, inputs.excluded)
    if inputs.excluded:
        # The configuration was checked with all sites; what is left has to be enough too.
        experiment.protection.check(experiment.cohort(len(folder.sites())))
    # Each site asks this itself, once it has trained.
    refuse_thin(experiment, folder.case_counts(), None, folder.sites())
    if experiment.evaluation.share == "sums":
        refuse_thin(experiment, folder.case_counts(), EVALUATION, folder.sites())
    runs = folder.root.parent.parent
    if said := take_over(experiment, inputs.data, inputs.dataset, runs, params):
        tell(said)
    return inputs


def _begin(
    experiment: Experiment, folder: RunFolder, inputs: Prepared | None, pool: Executor
) -> Beginning:
    """Have the sites take part in the run, and write what round 1 starts from.

    With ``inputs`` the sites are simulated: their homes are made here, below the run's folder.
    Without, they are parties of their own.
    """
    going_on = folder.done_rounds() > 0
    if not going_on:
        info = inputs.dataset.info if inputs else known_info(experiment.data)
        model = new_model(experiment, info)
        # Refuses layers that are not there before anything is trained.
        trained_parameters(model, experiment.training, experiment.rounds)
        if experiment.model.init != "random":
            report = load_pretrained(model, Path(experiment.model.init))
            write_json(folder.transfer_path, asdict(report))
            tell(report.line())
    if inputs is None:
        begun = begin_parties(experiment, folder, pool)
        if begun.data.source == "phantom":
            tell(PHANTOM_BANNER.format(name=experiment.data.dataset))
    else:
        begun = begin_simulated(folder, inputs, pool)
    for line in absence_lines(begun.coordinator.absent, "this run"):
        tell(line)
    for site, said in begun.coordinator.absent.items():
        tell_if_spent(site, folder.run_id, experiment.name, said)
    if not going_on:
        if experiment.privacy.unit:
            _announce(begun.coordinator, begun.warnings)
        write_initial_state(begun.coordinator, model)
    return begun


def _overrides(folder: RunFolder, name: str, params: Path) -> list[str] | None:
    """What is set in a run beside its entry of ``params``; ``None`` where it has none there."""
    try:
        base = load_experiment(name, (), params, plans=True)
    except ConsiliumError:
        return None
    own = folder.experiment().model_dump(mode="json", by_alias=True, exclude_defaults=True)
    stated = {section: value for section, value in own.items() if isinstance(value, dict)}
    return overrides_between(base.to_json(), folder.asked(), stated)


def _finish(run: Run, commit: str, register_model: bool, overrides: Sequence[str] | None) -> None:
    """Write the model, the summary and the report, register the model, close the MLflow run."""
    experiment, folder = run.experiment, run.folder
    records = run.coordinator.records()
    if predicts_nothing(records):
        raise ConsiliumError(f"After no round of this run there are metrics: {PREDICTS_NONE}")
    kept = kept_round(records, experiment.selection)
    model = new_model(experiment, run.info)
    state = read_state(folder.state_path(kept))
    state.layout.load(model, state.weights)
    header = replace(
        model_header(experiment, run.info, run.data.source),
        calibration=ModelCalibration.of_record(records[kept - 1].get("calibration")),
    )
    begins("keeping the model")
    topic = end_run(run.coordinator)
    handed = own_models(run.pool, run.quoted, run.calls(), topic, state)
    own = handed.models
    for site, reason in handed.missing.items():
        tell(f"the run ends without a model of {site}'s own: {reason}")
    save_model(folder.model_path, model, header, own)
    if experiment.sites.overlays:
        undrawn = overlays(run.pool, run.quoted, run.calls(), topic)
        for site, reason in undrawn.items():
            tell(f"there are no pictures of {site}: {reason}")
        tell(f"test cases with their masks: {folder.root}/overlays")
    final = final_evaluation(run, topic)
    registration = None
    if register_model:
        registration = register(
            experiment.name,
            folder.model_path,
            run.mlflow_run_id,
            experiment.selection.metric,
            metric_value(records[kept - 1], experiment.selection.metric),
        )
        if own:
            record = read_record(folder.record_path(kept), kept)
            _register_sites(run, registration.version, record, list(own))
    privacy = _privacy(run)
    facts = RunFacts(
        task=run.info.task,
        sites=run.sites,
        absent=run.coordinator.absent,
        no_own_model=handed.missing,
        privacy=privacy,
        startup=run.startup,
        total_seconds=time.time() - run.started,
        rounds_before_resume=run.rounds_before_resume,
        peak_rss_mb=peak_rss_mb(),
        git_commit=commit,
        mlflow_run_id=run.mlflow_run_id,
        model_version=registration.version if registration else None,
        sensitive_layers=sensitivity(run.quoted, topic, state)
        if experiment.strategy.own_values(state.layout, {}) is not None
        else None,
        overrides=overrides,
        final=final,
    )
    summary = summarise(folder, experiment, run.data, facts)
    write_json(folder.summary_path, summary)
    _report(folder)
    if experiment.privacy.unit or experiment.strategy.introduction():
        close(run.pool, run.calls())
    files = [folder.root / name for name in KEPT_IN_MLFLOW]
    tags = {"kept_round": str(kept)}
    if registration:
        tags["model_version"] = str(registration.version)
        tags["champion_reason"] = registration.reason
        tell(f"registered {experiment.name} version {registration.version}: {registration.reason}")
    describe(experiment, folder.root, summary)
    numbers = headline(summary) | final_numbers(final)
    end_tracking(run.mlflow_run_id, "FINISHED", files, tags, numbers)


def _report(folder: RunFolder) -> None:
    """Write the page of a run; it is for people, and without it the result is what it is."""
    begins("writing the report")
    try:
        report(folder)
    except Exception as error:
        name = folder.root.parent.name
        tell(f"there is no report of this run ({error}); `consilium report {name}` tries again")


def _register_sites(
    run: Run, version: int, record: Mapping[str, Any], sites: Sequence[str]
) -> None:
    """Register the own models of ``sites`` of a version beside it, by each site's own metric."""
    if len(sites) > MOST_TRACKED:
        tell(
            f"the models of {len(sites)} sites are in model.safetensors, and not registered one by "
            f"one: they are more than {MOST_TRACKED}"
        )
        return
    name, metric = run.experiment.name, run.experiment.selection.metric
    evaluated = record["per_site"]
    values = {
        site: metric_value_of(evaluated[site], metric) if site in evaluated else None
        for site in sites
    }
    register_sites(name, version, metric, values)
    tell(f"registered the models of {len(values)} sites as {name}.SITE")


def _privacy(run: Run) -> dict[str, Any]:
    """The privacy part of the summary, from the ledger of whoever holds the data."""
    reports = report_privacy(run.pool, run.quoted, run.calls())
    privacy = summarise_privacy(run.experiment, reports)
    for site in tell_if_low(run.context.run_id, run.experiment.name, reports):
        tell(f"{site} has little of its privacy budget left")
    if not run.experiment.privacy.unit:
        return privacy
    run_epsilon, all_epsilon = (
        "without bound" if privacy[key] is None else f"{privacy[key]:.3g}"
        for key in ("epsilon", "epsilon_ledger")
    )
    tell(
        f"privacy spent: epsilon {run_epsilon} at delta {privacy['delta']:g} for each "
        f"{privacy['unit']}, composed over the run ({privacy['accountant']}); "
        f"{all_epsilon} over all runs on these data"
    )
    track_privacy(run.mlflow_run_id, privacy)
    return privacy
