"""A site's cases of one split, as the local loop takes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from federated.data.augmentation import augment, draw_epoch
from federated.data.dataset import AnyLabels, Images, to_float
from federated.data.records import labelled_digests
from federated.randomness import Draws
from federated.settings.sections import TrainingSettings

# Inputs of the network, float32 ``(n, channels, *spatial)``, and the targets: integers ``(n,)`` in
# classification, ``(n, labels)`` with several labels, ``(n, *spatial)`` in segmentation; and
# float64 ``(n,)`` in regression.
Batch = tuple[Tensor, Tensor]


class Cases(Protocol):
    """The cases of any task; everything random comes from the generators that are given."""

    def __len__(self) -> int: ...

    @property
    def records(self) -> tuple[str, ...]:
        """The digest of each case's record, as :mod:`federated.data.records` computes it."""

    def load_batch(self, indices: Tensor, how: TrainingSettings, draws: Draws) -> Batch:
        """The cases of indices ``(n,)``, augmented; of each a patch, if the task has patches.

        With a generator for each case, what becomes of a case depends on no other case.
        """

    def epoch(
        self, how: TrainingSettings, batch_norm: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """The batches of an epoch.

        Args:
            how: the settings of the local loop.
            batch_norm: whether the network normalises over the cases of a batch.
            generator: what the order of cases and their augmentation are drawn from.
        """


@dataclass(frozen=True)
class LabelledImages:
    """Labelled images, all of them in memory.

    ``images`` are uint8 ``(n, channels, *spatial)``, and ``labels`` those of
    :class:`federated.data.dataset.Dataset`. ``digests`` are
    those of the records that ``images`` were made from, where a scanner profile has changed them.
    """

    images: Images
    labels: AnyLabels
    digests: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def records(self) -> tuple[str, ...]:
        """See :class:`Cases`."""
        return labelled_digests(self.images, self.labels) if self.digests is None else self.digests

    def load_batch(self, indices: Tensor, how: TrainingSettings, draws: Draws) -> Batch:
        """See :class:`Cases`."""
        images = torch.from_numpy(to_float(self.images[indices.numpy()]))
        labels = torch.from_numpy(self.labels[indices.numpy()])
        return augment(images, how.augment, draws), labels

    def epoch(
        self, how: TrainingSettings, batch_norm: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """See :class:`Cases`."""
        order = draw_epoch(torch.from_numpy(self.labels), how.sampling, generator)
        for indices in batches(order, how.batch_size, batch_norm):
            yield self.load_batch(indices, how, generator)


def merges_last_batch(cases: int, batch_size: int, batch_norm: bool) -> bool:
    """Whether the last batch joins the one before: BatchNorm cannot train on a single case."""
    return batch_norm and cases > batch_size and cases % batch_size == 1


def batches(order: Tensor, batch_size: int, batch_norm: bool) -> list[Tensor]:
    """Cut the order ``(n,)`` of an epoch into batches of ``batch_size`` cases."""
    parts = list(torch.split(order, batch_size))
    if merges_last_batch(len(order), batch_size, batch_norm):
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts
