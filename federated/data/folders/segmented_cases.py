"""A site's cases of a segmentation set: read when they are needed, whole or in patches."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torchio as tio
from cachetools import LRUCache
from torch import Tensor
from torchio.data.sampler import LabelSampler

from federated.data.augmentation import augment_pair
from federated.data.cases import Batch, batches
from federated.data.folders.families import CaseFiles, Family
from federated.data.folders.prepared_case import PreparedCase, prepare_case
from federated.data.records import case_digest
from federated.data.scanner import ScannerProfile, noise_number
from federated.randomness import Draws, global_draws
from federated.settings.sections import TrainingSettings

# How many volumes a queue of patches mixes.
QUEUE_CASES = 8


@dataclass(frozen=True)
class ShownCase:
    """A case's files, and the scanner that shows its images, if any.

    The scanner's noise depends on the ``identity`` of the case's record, or without one on its
    name.
    """

    files: CaseFiles
    profile: ScannerProfile | None
    identity: str | None = None


Kept = LRUCache[ShownCase, PreparedCase]


@dataclass(frozen=True)
class SegmentedCases:
    """The cases of a site in a split.

    ``kept`` holds what a worker has prepared last, for all of its sites. ``digest`` gives the
    digest of a case's record.
    """

    family: Family
    shown: Sequence[ShownCase]
    kept: Kept
    digest: Callable[[CaseFiles], str] = case_digest

    def __len__(self) -> int:
        return len(self.shown)

    @property
    def records(self) -> tuple[str, ...]:
        """See :class:`federated.data.cases.Cases`."""
        return tuple(self.digest(shown.files) for shown in self.shown)

    def case(self, index: int) -> PreparedCase:
        """The case of an index, prepared.

        Raises:
            ConsiliumError: a file cannot be read, or does not fit the family.
        """
        shown = self.shown[index]
        if shown in self.kept:
            return self.kept[shown]
        # Not by its place, so that it is the same in whatever company.
        number = noise_number(shown.identity or shown.files.name)
        prepared = prepare_case(self.family, shown.files, shown.profile, number)
        if prepared.nbytes <= self.kept.maxsize:
            self.kept[shown] = prepared
        return prepared

    def load_batch(self, indices: Tensor, how: TrainingSettings, draws: Draws) -> Batch:
        """See :class:`federated.data.cases.Cases`."""
        own = [draws] * len(indices) if isinstance(draws, torch.Generator) else draws
        pairs = zip(indices, own, strict=True)
        drawn = [self._draw(int(index), generator) for index, generator in pairs]
        if not drawn:
            shape = self.family.shape
            return torch.zeros(0, self.family.channels, *shape), torch.zeros(0, *shape).long()
        return self._augmented(drawn, how, draws)

    def epoch(
        self, how: TrainingSettings, batch_norm: bool, generator: torch.Generator
    ) -> Iterator[Batch]:
        """See :class:`federated.data.cases.Cases`; patches come from TorchIO's queue."""
        if self.family.whole:
            order = torch.randperm(len(self), generator=generator)
            for indices in batches(order, how.batch_size, batch_norm):
                yield self.load_batch(indices, how, generator)
            return
        with global_draws(generator):
            queue = self._queue(how.patches_per_case)
        patches = torch.arange(how.drawn(len(self)))
        for numbers in batches(patches, how.batch_size, batch_norm):
            with global_draws(generator):
                drawn = [_pair(queue[int(number)]) for number in numbers]
            yield self._augmented(drawn, how, generator)

    def _queue(self, patches_per_case: int) -> tio.Queue:
        subjects = _Subjects(self)
        return tio.Queue(
            subjects,
            max_length=min(len(self), QUEUE_CASES) * patches_per_case,
            samples_per_volume=patches_per_case,
            sampler=self._sampler(),
        )

    def _sampler(self) -> LabelSampler:
        """Patches around a voxel of any label with equal chances; padded volumes hold them."""
        labels = dict.fromkeys(range(len(self.family.labels)), 1.0)
        return LabelSampler(self._patch_shape, "mask", labels)

    @property
    def _patch_shape(self) -> tuple[int, int, int]:
        """The shape of a patch as TorchIO has it, where a picture's has a third axis."""
        height, width, depth = (*self.family.shape, 1)[:3]
        return height, width, depth

    def subject(self, index: int) -> tio.Subject:
        """A case as TorchIO's subject, at least as large as a patch."""
        case = self.case(index)
        flat = self.family.dims == 2
        assert case.whole_mask is not None
        # At least as large as a patch, with the image's own background around it.
        image = case.whole.unsqueeze(-1) if flat else case.whole
        mask = case.whole_mask.unsqueeze(-1) if flat else case.whole_mask
        return tio.Subject(
            image=tio.ScalarImage(tensor=image), mask=tio.LabelMap(tensor=mask[None])
        )

    def _draw(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A case, or a patch of it."""
        if self.family.whole:
            case = self.case(index)
            assert case.mask is not None
            return case.image, case.mask
        with global_draws(generator):
            (patch,) = self._sampler()(self.subject(index), 1)
        return _pair(patch)

    def _augmented(
        self,
        drawn: Sequence[tuple[Tensor, Tensor]],
        how: TrainingSettings,
        draws: Draws,
    ) -> Batch:
        images = torch.stack([image for image, _ in drawn])
        masks = torch.stack([mask for _, mask in drawn])
        return augment_pair(images, masks, how.augment, self.family.mirrored, draws)


class _Subjects(tio.SubjectsDataset):
    """The cases as TorchIO's queue takes them: read one at a time."""

    def __init__(self, cases: SegmentedCases) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tio.Subject:
        return self.cases.subject(index)

    def dry_iter(self) -> Sequence[tio.Subject]:
        """As many subjects as there are cases, which the queue only counts."""
        return [tio.Subject(image=tio.ScalarImage(tensor=torch.zeros(1, 1, 1, 1)))] * len(self)


def _pair(patch: tio.Subject) -> tuple[Tensor, Tensor]:
    """The image and the mask of a patch; without their third axis for a picture."""
    image, mask = patch.get_image("image").data, patch.get_image("mask").data[0]
    return (image[..., 0], mask[..., 0]) if mask.shape[-1] == 1 else (image, mask)
