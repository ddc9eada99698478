"""fl-join: a new site joins a finished federation."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.provenance import code_commit
from federated.run.folder import RunFolder
from federated.run.prepared import partition_inputs
from federated.run.runs import reopen_run
from federated.run.selection import metric_value_of
from federated.stages.coordinator import propose
from federated.stages.join import Joined, joining_experiment
from federated.stages.ledger_migration import take_over
from federated.stages.privacy_report import summarise_privacy
from federated.update import Layout
from federated.weights.build import model_header, new_model
from federated.weights.model_file import save_model
from flows.going_on import goes_on_by, joining
from flows.progress import tell
from flows.simulation import enrol_parts
from flows.site_stages import call_site
from flows.written import counted_task_runs
from tasks.join import join
from tasks.pool import open_pool
from tasks.prepare import download, read
from tasks.privacy import report_privacy
from tasks.register import register, site_model_name
from tasks.take_part import agree
from tasks.track import NOT_TOLD, end_tracking, start_tracking, track_round
from tasks.validate import validate


@flow(name="fl-join", flow_run_name="{site} joins {experiment}")
def fl_join(
    experiment: str,
    site: str,
    data: str,
    run_id: str = "latest",
    rounds: int = 5,
    runs: str = "runs",
    register_model: bool = True,
) -> str:
    """Let a new site join a finished run: take, find its own part, train it, evaluate, register.

    Args:
        experiment: a name under ``experiments`` in params.yaml.
        site: the new site's name.
        data: the folder with the site's data, in the form of ``data.root``.
        run_id: the federation's run, or ``latest``.
        rounds: how many rounds of ``training.local_epochs`` the site trains.
        runs: the folder that holds all runs.
        register_model: whether the site's model is registered as ``EXPERIMENT.SITE``.

    Returns:
        The site's folder, ``joined/SITE`` of the run.

    Raises:
        ConsiliumError: something in the input cannot be used.
    """
    federation, _ = reopen_run(Path(runs), experiment, run_id, None)
    options = {"site": site, "data": data, "run": federation.run_id, "rounds": str(rounds)}
    options |= {} if runs == "runs" else {"runs": runs}
    with counted_task_runs(), goes_on_by(joining(experiment, options)):
        return _join(federation, site, Path(data), rounds, register_model=register_model)


def _join(
    federation: RunFolder, site: str, data: Path, rounds: int, *, register_model: bool
) -> str:
    """Join a federation; return the site's folder.

    Args:
        federation: the run.
        site: the new site's name.
        data: the folder with its data.
        rounds: how many rounds it trains.
        register_model: whether its model is registered.

    Raises:
        ConsiliumError: something in the input cannot be used.
    """
    experiment, runs = federation.root.parent.name, federation.root.parent.parent
    resolved = joining_experiment(federation, site, data)
    folder = RunFolder(federation.root / "joined" / site)
    private = federation.experiment().privacy.unit is not None
    located, dataset, partition = _take(resolved, site)
    # Its folder lies in the federation's and is as open as that: not at all where that is private.
    md5 = located.told_md5(private)
    folder.write_partition(partition, partition_inputs(resolved, located, md5))
    reports = folder.own_reports if private else folder.root
    validate(resolved, dataset, partition, folder.root, reports)
    folder.write_inputs(resolved, located, ())
    if said := take_over(resolved, located, dataset, runs, Path("params.yaml")):
        tell(said)
    members = enrol_parts(folder, located, partition, [site])
    proposed = propose(folder, members, [site])
    with open_pool(resolved) as pool:
        call = call_site(proposed, site)
        coordinator, _ = agree(pool, proposed, [call])
        started = time.time()
        joined = join(pool, coordinator, call, federation, rounds, dataset.info)
        seconds = time.time() - started
        report_privacy(pool, coordinator, [call])
    model = new_model(resolved, dataset.info)
    Layout.of(model).load(model, joined.weights)
    header = model_header(resolved, dataset.info, located.source)
    save_model(folder.model_path, model, header)
    told = replace(located, md5=md5 or NOT_TOLD)
    mlflow_run_id = start_tracking(resolved, folder, told, code_commit())
    track_round(mlflow_run_id, 0, joined.before, {})
    track_round(mlflow_run_id, rounds, joined.after, {"joined/moved": joined.moved})
    metric = resolved.selection.metric
    after = joined.after.per_site[site]
    version = None
    if register_model:
        name = site_model_name(experiment, site)
        value = metric_value_of(after, metric)
        version = register(name, folder.model_path, mlflow_run_id, metric, value).version
        tell(f"registered {name} version {version}")
    summary = _summary(federation, resolved, located, partition, joined, site, rounds)
    summary["seconds"] = seconds
    write_json(folder.summary_path, summary | {"data_md5": md5, "model_version": version})
    files = [
        folder.root / name for name in ("summary.json", "validation.json", "data_docs", "ledger")
    ]
    tags = {"joined": site, "federation": federation.run_id}
    end_tracking(mlflow_run_id, "FINISHED", files, tags)
    judged = metric.split("/")[1]
    for split in ("val", "test"):
        was, now = (each.per_site[site][split][judged] for each in (joined.before, joined.after))
        tell(f"{split} {judged}: {_shown(was)} with the global model, {_shown(now)} with its own")
    return str(folder.root)


def _take(experiment: Experiment, site: str) -> tuple[LocatedFile, AnyDataset, Partition]:
    """The site's data, and all of its cases as its own.

    Raises:
        ConsiliumError: there are no such data in the folder that was named.
    """
    located = download(experiment)
    root = experiment.data.root
    if not located.path.resolve().is_relative_to(root.resolve()):
        raise ConsiliumError(
            f"There is no {experiment.data.dataset} in {root}, where the joining site's data are "
            f"to be; what was found lies in {located.path}. Name the folder above the data with "
            "--data."
        )
    dataset = read(experiment, located)
    drawn = partition_dataset(dataset, experiment.sites, experiment.seed)
    (splits,) = drawn.sites.values()
    partition = Partition({site: splits}, drawn.draws, drawn.moved)
    return located, dataset, partition


def _summary(
    federation: RunFolder,
    experiment: Experiment,
    located: LocatedFile,
    partition: Partition,
    joined: Joined,
    site: str,
    rounds: int,
) -> dict[str, Any]:
    return {
        "experiment": experiment.name,
        "federation": federation.run_id,
        "strategy": federation.experiment().strategy.name,
        "site": site,
        "cases": {split: len(cases) for split, cases in partition.sites[site].items()},
        "data_source": located.source,
        "rounds": rounds,
        "moved": joined.moved,
        "privacy": summarise_privacy(experiment, {}),
        "before": dict(joined.before.per_site[site]),
        "after": dict(joined.after.per_site[site]),
        "classes_absent": {s: list(c) for s, c in joined.after.classes_absent.items()},
        "seed": experiment.seed,
    }


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
