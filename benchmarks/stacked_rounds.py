"""What rounds take where several sites train in one call of a worker: the same run in turn.

    python -m benchmarks.stacked_rounds --folder FOLDER --data DATA --set training.device=cuda

AdrenalMNIST3D, 10 sites, the small network, batches of 8, one local epoch, as `consilium run` does
it: each site by itself, with as many workers as a run has and with one, and stacks of five and of
ten sites (`runner.stacked_sites`), with a worker for each stack. The median of all rounds but the
first of each run, over all repetitions, and its ratio to that of the first way. Runs are in turn,
every other time in the opposite order.
"""

import sys

from benchmarks.ways_of_rounds import compare

BATCHES = "training.batch_size=8"
WAYS = {
    "alone": (BATCHES, "runner.workers=auto"),
    "alone, one worker": (BATCHES, "runner.workers=1"),
    "stacks of 5": (BATCHES, "runner.workers=2", "runner.stacked_sites=5"),
    "stacks of 10": (BATCHES, "runner.workers=1", "runner.stacked_sites=10"),
}


if __name__ == "__main__":
    sys.exit(compare(WAYS, "of one alone", __doc__ or "", sys.argv[1:]))
