"""The stages of dvc.yaml: the same tasks as in the flows, each in a process, without a server."""

import csv
from pathlib import Path

from federated.configuration.experiment import Experiment
from federated.data.load import load
from federated.data.partition import leave_out
from federated.errors import ConsiliumError
from federated.files import atomic_path, write_json
from federated.inference.evaluation import evaluate_file, experiment_of
from federated.learning import metrics_in
from federated.run.folder import RunFolder
from federated.run.prepared import write_prepared_partition
from federated.weights.model_file import read_header
from flows.prepare import prepared_folder, still_to_plan
from tasks.prepare import download, keep
from tasks.prepare import partition as deal
from tasks.validate import validate

STEPS = ("download", "partition", "validate")


def run_step(step: str, experiment: Experiment) -> str:
    """Run one step of fl-prepare on the prepared folder; return what to tell a person.

    Raises:
        ConsiliumError: the step is unknown, or what the step raises.
    """
    if step not in STEPS:
        raise ConsiliumError(f"There is no step {step!r}. Steps, in order: {', '.join(STEPS)}.")
    folder = prepared_folder(experiment)
    if step == "download":
        data = keep.fn(download.fn(experiment), folder)
        return f"{data.path} (data_source: {data.source})"
    data = folder.data()
    dataset = load(data, experiment.data)
    if step == "partition":
        whole = deal.fn(experiment, dataset)
        write_prepared_partition(folder.partition_path, experiment, data, dataset, whole)
        return f"{folder.partition_path}: {len(whole.sites)} sites"
    validation = validate.fn(experiment, dataset, folder.full_partition(), folder.root)
    excluded = ", ".join(validation.excluded) or "none"
    dropped = sum(len(cases) for splits in validation.dropped.values() for cases in splits.values())
    told = f"{folder.root}/validation.json: excluded sites: {excluded}; cases left out: {dropped}"
    return "\n".join(filter(None, (told, still_to_plan(experiment))))


def evaluate_model(experiment: Experiment, model: Path, out: Path) -> dict[str, float | None]:
    """Write the metrics of a model on the prepared data as JSON; return those of the test split.

    The cases are those that its run had. What was planned for a run was not known when the data
    were prepared: they are validated once more by it, as the run has done, and what is found lies
    in ``as_planned/`` of the prepared folder.

    Raises:
        ConsiliumError: the model or the data cannot be used, or a budget does not allow it.
    """
    prepared = prepared_folder(experiment)
    trained = experiment_of(experiment, model)
    dataset = load(prepared.data(), trained.data)
    if trained.data == experiment.data:
        excluded, partition = prepared.excluded_sites(), prepared.partition()
    else:
        whole = prepared.full_partition()
        found = validate.fn(trained, dataset, whole, prepared.root / "as_planned")
        excluded, partition = found.excluded, leave_out(whole, found.dropped)
    evaluation = evaluate_file(trained, dataset, partition, excluded, model)
    write_json(
        out,
        {
            "data_source": read_header(model).data_source,
            **evaluation.overall,
            "per_site": dict(evaluation.per_site),
        },
    )
    return dict(evaluation.overall["test"])


def export_run(folder: RunFolder, target: Path) -> None:
    """Put a finished run's model and the metrics of its rounds into ``target``, for DVC."""
    with atomic_path(target / "model.safetensors") as temporary:
        temporary.write_bytes(folder.model_path.read_bytes())
    with atomic_path(target / "rounds.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        records = [record for record in folder.records(sites=()) if record["metrics"]]
        names = [name for name in metrics_in("csv") if name in records[0]["metrics"]["val"]]
        writer.writerow(["round", "split", "score", *names])
        for record in records:
            for split, metrics in record["metrics"].items():
                values = [metrics[name] for name in names]
                writer.writerow([record["round"], split, values[0], *values])
