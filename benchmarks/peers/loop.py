"""A bare PyTorch loop as anybody would write it first: one process, torch's own threads.

python -m benchmarks.peers.loop WORK OUT
"""

import sys
from pathlib import Path

from benchmarks.peers.work import Marks, Work, evaluate, load, train, weights_of, write_weights


def main(folder: Path, out: Path) -> None:
    """Train, and write the marks and the final weights to ``out``."""
    work, marks = Work.read(folder), Marks()
    model = work.model()
    weights, total = weights_of(model), sum(work.sizes)
    marks.now()
    for round_number in range(1, work.rounds + 1):
        mean = {name: value * 0 for name, value in weights.items()}
        for site, size in enumerate(work.sizes):
            load(model, weights)
            train(work, model, site, round_number)
            for name, value in weights_of(model).items():
                mean[name] += value * (size / total)
        weights = mean
        load(model, weights)
        for site in range(len(work.sites)):
            evaluate(work, model, site)
        marks.now()
    marks.write(out)
    write_weights(out / "weights.npz", weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
