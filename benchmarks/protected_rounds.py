"""What a round costs more where updates are protected: the same run in turn under each protection.

    python -m benchmarks.protected_rounds --folder FOLDER --data DATA

AdrenalMNIST3D, 10 sites, the small network, one local epoch, as `consilium run` does it: in the
clear, masked with SecAgg+ (16-bit values), and encrypted with packed BFV (2 % of the values, 7
bits). The median of all rounds but the first of each run, over all repetitions, and its ratio to
that of the rounds in the clear. Runs are in turn, every other time in the opposite order.
"""

import sys

from benchmarks.ways_of_rounds import compare

BATCHES = "training.batch_size=32"
PROTECTIONS = {
    "plain": (BATCHES, "protection.name=plain"),
    "secagg_plus": (BATCHES, "protection.name=secagg_plus", "compression.bits=16"),
    "packed_bfv": (
        *(BATCHES, "protection.name=packed_bfv", "compression.name=shared_mask"),
        *("compression.bits=7", "compression.density=0.02", "compression.explore=1"),
    ),
}


if __name__ == "__main__":
    sys.exit(compare(PROTECTIONS, "of one in the clear", __doc__ or "", sys.argv[1:]))
