"""What sites send of an evaluation in each mode, and how far the AUC of statistics is off.

``python benchmarks/evaluation_shared.py RUN …`` reads what the sites of finished runs have sent of
the last round, and prints a line of a table for each run. The runs have to be of classification,
with ``evaluation.share=predictions``: from predictions follows what would have been sent instead.
"""

import argparse
import os
from pathlib import Path

from safetensors.numpy import save

from federated.data.dataset import SPLITS, DatasetInfo
from federated.data.load import load
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.message import open_message
from federated.learning import CLASSIFICATION, evaluate_here, shared_arrays
from federated.learning.sharing import BySite
from federated.run.folder import RunFolder
from federated.settings.sections import EvaluationSettings, Share
from federated.stages.evaluate import read_shared

MODES: tuple[Share, ...] = ("metrics", "statistics", "predictions")
HEAD = (
    *("run", "test cases", "AUC", "from histograms", "off by", "between", "worst site off by"),
    *(f"bytes a site, {mode}" for mode in MODES),
)


def site_bytes(predictions: BySite, info: DatasetInfo, share: Share) -> tuple[int, int]:
    """The smallest and the largest number of bytes that a site sends of its two splits."""
    settings = EvaluationSettings(share=share)
    sizes = []
    for by_split in predictions.values():
        arrays = {
            f"{split}.{name}": array
            for split, found in by_split.items()
            for name, array in shared_arrays(CLASSIFICATION, found, info, settings).items()
        }
        sizes.append(len(save(arrays)))
    return min(sizes), max(sizes)


def sent(folder: RunFolder, round_number: int, site: str) -> bytes:
    """What a site has sent of the evaluation of a round, in the last attempt at it.

    Raises:
        ConsiliumError: it has sent nothing, or another party has.
    """
    members = Enrolment.read(folder.coordinator_path / "members.json").members
    place = folder.exchange_path / folder.run_id / f"round-{round_number:03d}"
    paths = sorted(place.glob(f"attempt-*/*/{kinds.EVALUATION}/{site}/*"), key=os.path.getmtime)
    if not paths:
        raise ConsiliumError(f"{site} has sent nothing of round {round_number} of {folder.root}.")
    with open_message(paths[-1]) as unread:
        return unread.read(members[site].identity, kinds.MOST_EVALUATION).body


def line(run: Path) -> str:
    """The line of the table for one run.

    Raises:
        ConsiliumError: its sites have not shared predictions.
    """
    folder = RunFolder(run)
    experiment = folder.experiment()
    if experiment.evaluation.share != "predictions":
        raise ConsiliumError(
            f"The sites of the run {run} have shared {experiment.evaluation.share}, and exact AUCs "
            "follow from predictions alone. Run it with --set evaluation.share=predictions."
        )
    rounds = folder.done_rounds()
    info = load(folder.data(), experiment.data).info
    predictions = {site: read_shared(sent(folder, rounds, site), site) for site in folder.sites()}
    exact = CLASSIFICATION.score(predictions, info)
    told = evaluate_here(CLASSIFICATION, predictions, info, EvaluationSettings())
    (was, now) = (each.overall["test"]["auc"] for each in (exact, told))
    assert was is not None
    assert now is not None
    low, high = told.intervals["test"]["auc"]
    differences = [
        abs(one - other)
        for site in predictions
        for split in SPLITS[1:]
        if (one := exact.per_site[site][split]["auc"]) is not None
        and (other := told.per_site[site][split]["auc"]) is not None
    ]
    cases = sum(len(by_split["test"]["labels"]) for by_split in predictions.values())
    sizes = []
    for mode in MODES:
        least, most = site_bytes(predictions, info, mode)
        sizes.append(f"{most:,}" if least == most else f"{least:,} to {most:,}")
    cells = (
        f"{experiment.name}, round {rounds}",
        str(cases),
        f"{was:.5f}",
        f"{now:.5f}",
        f"{abs(was - now):.5f}",
        f"{low:.4f}, {high:.4f}",
        f"{max(differences):.5f}",
        *sizes,
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |")
    print("| " + " | ".join(["---"] * len(HEAD)) + " |")
    for run in arguments.runs:
        print(line(run.resolve()))


if __name__ == "__main__":
    main()
