"""The stages of dvc.yaml: the same tasks as in the flows, one a process, without a server."""

import csv
from pathlib import Path

from federated.config import Experiment
from federated.data.load import load
from federated.errors import ConsiliumError
from federated.evaluation import evaluate_file
from federated.files import atomic_path, write_json
from federated.model_file import read_header
from federated.run_folder import RunFolder
from flows.prepare import prepared_folder
from tasks.prepare import download, partition
from tasks.validate import validate

STEPS = ("download", "partition", "validate")


def run_step(step: str, experiment: Experiment) -> str:
    """Run one step of fl-prepare on the prepared folder; return what to tell a person.

    Raises:
        ConsiliumError: an unknown step, or what the step says.
    """
    if step not in STEPS:
        raise ConsiliumError(f"There is no step {step!r}. Steps, in order: {', '.join(STEPS)}.")
    folder = prepared_folder(experiment)
    if step == "download":
        data = download.fn(experiment, folder)
        return f"{data.path} (data_source: {data.source})"
    data = folder.data()
    dataset = load(data, experiment.data)
    if step == "partition":
        dealt = partition.fn(experiment, data, dataset, folder.partition_path)
        return f"{folder.partition_path}: {len(dealt.sites)} sites"
    validation = validate.fn(experiment, dataset, folder.partition(), folder.root)
    excluded = ", ".join(validation.excluded) or "none"
    return f"{folder.root}/validation.json: excluded sites: {excluded}"


def evaluate_model(experiment: Experiment, model: Path, out: Path) -> dict[str, float | None]:
    """Write the metrics of a model on the prepared data as JSON; return those of the test split."""
    evaluation = evaluate_file(experiment, prepared_folder(experiment), model)
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
        writer.writerow(["round", "split", "auc", "accuracy", "balanced_accuracy", "loss"])
        for record in folder.records():
            for split, metrics in record["metrics"].items():
                values = [metrics[n] for n in ("auc", "accuracy", "balanced_accuracy", "loss")]
                writer.writerow([record["round"], split, *values])
