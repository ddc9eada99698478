"""What a secure sum of the evaluation costs, beside statistics of each site in the clear.

    python -m benchmarks.evaluation_sums --sites 10 --repeats 3

For statistics as large as those of ``organ`` (11 classes with 1,024 bins) and ``hippocampus`` (two
classes beside the background), both of two splits: how many digits a site sends, and what one round
of summing them takes, all parties in one process and on one core. The digits are random; each sum
is checked to be exact. Columns are those of ``benchmarks/rlwe_secagg.py``.
"""

import argparse
import os
import statistics
import tempfile

import numpy as np
from safetensors.numpy import save

from benchmarks.rlwe_secagg import measure
from federated.data.dataset import SPLITS, DatasetInfo
from federated.data.partition import CaseCounts
from federated.learning import CLASSIFICATION, SEGMENTATION, LearningTask, summed_bounds
from federated.learning.statistics import EvaluationStatistics, to_wire
from federated.protection.digits import digit_base

# The task, and how many classes there are, and how many validation and test cases at a site.
KINDS: dict[str, tuple[LearningTask, int, int]] = {
    "organ": (CLASSIFICATION, 11, 61),
    "hippocampus": (SEGMENTATION, 3, 10),
}
HEAD = (
    *("statistics of", "in the clear, kB", "digits", "protection", "kB up", "messages up, kB"),
    *("kB down", "messages down, kB", "site, ms", "its messages, ms", "coordinator, ms"),
)


def in_the_clear(task: LearningTask, info: DatasetInfo) -> int:
    """The bytes of a site's statistics of two splits, as ``evaluation.share=statistics`` sends."""
    form = task.statistics.form(info)
    zeros = {n: np.zeros(p.shape, float if p.real else np.int64) for n, p in form.items()}
    wire = to_wire(EvaluationStatistics(zeros))
    return len(save({f"{s}.{n}": array for s in SPLITS[1:] for n, array in wire.items()}))


def lines(name: str, sites: int, bits: int, repeats: int) -> list[str]:
    """The lines of the table for one kind of statistics."""
    task, classes, cases = KINDS[name]
    info = DatasetInfo(name, tuple(map(str, range(classes))), 1, 3, {}, "")
    own = dict.fromkeys(SPLITS, cases)
    counts = CaseCounts({f"site-{number:03d}": own for number in range(sites)})
    length = summed_bounds(task, counts, info).digits(digit_base(bits))
    clear = f"{in_the_clear(task, info) / 1e3:.1f}"
    found = []
    for row in measure(length, sites, bits, 0.0, repeats):
        sizes = (row.up, row.up_messages, row.down, row.down_messages)
        times = (row.update, row.messages, row.coordinator)
        cells = [name, clear, str(length), row.name.partition(":")[0]]
        cells += [f"{each / 1e3:.1f}" for each in sizes]
        cells += [f"{1e3 * statistics.median(each):.1f}" if each else "-" for each in times]
        found.append("| " + " | ".join(cells) + " |")
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |")
    print("| " + " | ".join(["---"] * len(HEAD)) + " |")
    with tempfile.TemporaryDirectory() as keys:
        os.environ["CONSILIUM_KEYS"] = keys
        for name in KINDS:
            print("\n".join(lines(name, given.sites, given.bits, given.repeats)))


if __name__ == "__main__":
    main()
