"""FedAvg with pfl-research's simulated backend, by torchrun in one process of one thread a core.

torchrun --nproc-per-node=2 -m benchmarks.peers.pfl.run WORK OUT
"""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops import pytorch_ops
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from benchmarks.peers.work import (
    EVALUATION_BATCH,
    Marks,
    Work,
    cases,
    weights_of,
    write_weights,
)


class Learner(nn.Module):
    """The network with the loss and the metrics that pfl asks for."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        logits: Tensor = self.network(images)
        return logits

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of a batch of training."""
        self.train()
        return nn.functional.cross_entropy(self(images), labels)

    @torch.inference_mode()
    def metrics(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """What is right of a batch of evaluation."""
        self.eval()
        found = self(images.float() / 255.0).double().softmax(dim=1).argmax(1)
        return {"accuracy": Weighted(int((found == labels).sum()), len(labels))}


class SiteCases(Dataset):
    """A site's training cases, in the batches of the round."""

    def __init__(self, work: Work, site: int, turn: "Turn") -> None:
        images, labels = cases(work.folder, work.sites[site], "train")
        super().__init__(raw_data=[images, labels], user_id=str(site))
        self.work, self.site, self.turn = work, site, turn

    def iter(self, batch_size: int | None) -> Iterable[Any]:  # noqa: ARG002 - the work's own
        """The batches of the round."""
        yield from self.work.batches(self.site, self.turn.number)


class Turn(TrainingProcessCallback):
    """Which round it is, counted from 1; marks the end of each."""

    def __init__(self) -> None:
        self.number, self.marks = 1, Marks()

    def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Metrics]:
        """The end of a round."""
        self.number += 1
        self.marks.now()
        return False, Metrics()


class Unasked(FederatedAveraging):
    """FedAvg that does not evaluate training cases, as no contestant does."""

    def get_next_central_contexts(self, *given: Any, **named: Any) -> Any:
        """As pfl's, without an evaluation of the cohort."""
        contexts, model, metrics = super().get_next_central_contexts(*given, **named)
        if contexts is not None:
            contexts = tuple(replace(each, do_evaluation=False) for each in contexts)
        return contexts, model, metrics


class AfterEach(CentralEvaluationCallback):
    """Evaluation after each round, not before the first."""

    def on_train_begin(self, *, model: Any) -> Metrics:  # noqa: ARG002 - as pfl calls it
        """Nothing."""
        return Metrics()


def main(folder: Path, out: Path) -> None:
    """Train, and have the first process write the marks and the final weights to ``out``."""
    if pytorch_ops.distributed.world_size > 1:
        torch.set_num_threads(1)
    work, turn = Work.read(folder), Turn()
    learner = Learner(work.model())
    model = PyTorchModel(
        learner,
        lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=work.weight_decay),
        torch.optim.SGD(learner.parameters(), lr=1.0),
    )
    sites = list(range(len(work.sites)))
    sizes = dict(enumerate(work.sizes))
    federated = FederatedDataset(
        lambda site: SiteCases(work, site, turn),
        get_user_sampler("minimize_reuse", sites),
        user_id_to_weight=None if len(sites) < 2 else sizes,
    )
    held = [cases(work.folder, site, split) for site in work.sites for split in ("val", "test")]
    evaluated = Dataset([np.concatenate([pair[part] for pair in held]) for part in (0, 1)])
    params = NNAlgorithmParams(
        central_num_iterations=work.rounds,
        evaluation_frequency=1,
        train_cohort_size=len(sites),
        val_cohort_size=0,
    )
    backend = SimulatedBackend(federated, federated, postprocessors=[WeightByDatapoints()])
    asked = NNEvalHyperParams(local_batch_size=EVALUATION_BATCH)
    turn.marks.now()
    Unasked().run(
        params,
        backend,
        model,
        NNTrainHyperParams(
            local_learning_rate=work.lr, local_num_epochs=1, local_batch_size=work.batch_size
        ),
        asked,
        [AfterEach(evaluated, asked), turn],
        send_metrics_to_platform=False,
    )
    if pytorch_ops.distributed.global_rank == 0:
        turn.marks.write(out)
        write_weights(out / "weights.npz", weights_of(learner.network))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
