"""The training script of a site for NVIDIA FLARE's Client API, as its examples are written.

It evaluates the model that it is sent and then trains it, so that in N rounds N models are
evaluated.
"""

import sys
from pathlib import Path

# FLARE runs it from a copy in its workspace.
import nvflare.client as flare
import torch

from benchmarks.peers.work import Work, evaluate, train


def main(folder: Path) -> None:
    """Train whenever the server asks for it."""
    torch.set_num_threads(1)
    work = Work.read(folder)
    model = work.model()
    flare.init()
    # FLARE names its sites site-1, site-2, …
    site = int(flare.get_site_name().removeprefix("site-")) - 1
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        model.load_state_dict(
            {name: torch.as_tensor(value) for name, value in received.params.items()}
        )
        count, right = evaluate(work, model, site)
        train(work, model, site, received.current_round + 1)
        flare.send(
            flare.FLModel(
                params=model.state_dict(),
                metrics={"accuracy": right / max(1, count)},
                meta={"NUM_STEPS_CURRENT_ROUND": work.sizes[site]},
            )
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
