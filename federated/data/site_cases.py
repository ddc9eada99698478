"""The cases of every site and split of an experiment, as its scanner shows them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from cachetools import LRUCache

from federated.data.cases import Cases, LabelledImages
from federated.data.dataset import Dataset, Images, Labels, Split
from federated.data.folders.families import CaseFiles, Family
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.data.records import case_digest, identities, labelled_digests
from federated.data.scanner import (
    ScannerProfile,
    apply_profile,
    noise_number,
    scanner_profile,
)

if TYPE_CHECKING:
    from federated.data.folders.segmented_cases import Kept
    from federated.data.raw_cases import RawCase

# The most bytes that a worker keeps of the prepared cases of all its sites.
KEPT_BYTES = 2**30


@dataclass(frozen=True)
class Shown:
    """The setting that each site has a scanner of its own, which follows from ``seed``.

    With ``by_record`` a scanner's noise in an image depends on the image's own record, so that one
    case more or less changes no other's. Otherwise it depends on a case's place or name.
    """

    seed: int
    by_record: bool = False


@dataclass(frozen=True)
class Listed:
    """The files of the cases of a set, by name, and how they are read."""

    family: Family
    cases: Mapping[str, CaseFiles]


def new_kept() -> "Kept":
    """An empty place for prepared cases, of bounded size."""
    return LRUCache(KEPT_BYTES, getsizeof=lambda case: case.nbytes)


class SiteCases:
    """Cases by site and split, each made once, because a scanner profile takes time.

    Args:
        dataset: the data set.
        partition: the cases of each site.
        shown: the scanners of the sites; ``None`` without any.
        kept: where prepared cases are kept, if other cases are kept there too.
    """

    def __init__(
        self,
        dataset: AnyDataset,
        partition: Partition,
        shown: Shown | None = None,
        kept: "Kept | None" = None,
    ) -> None:
        self.partition = partition
        self._dataset, self._shown = dataset, shown
        self._kept = new_kept() if kept is None else kept
        # Kept as long as what is prepared of the files, so that both are of the same content.
        self._digest = lru_cache(maxsize=None)(case_digest)
        self._made = lru_cache(maxsize=None)(self._make)
        self._records = lru_cache(maxsize=None)(self._digests_of)

    def of(self, site: str, split: Split) -> Cases:
        """The cases of one site."""
        return self._made((site,), split)

    def pooled(self, sites: Iterable[str], split: Split) -> Cases:
        """The cases of several sites together."""
        return self._made(tuple(sites), split)

    def records(self, sites: Iterable[str], split: Split) -> tuple[str, ...]:
        """The digests of the records of one site or several; no image is shown for it."""
        return tuple(digest for site in sites for digest in self._records(site, split))

    def patients(self, site: str, split: Split) -> tuple[str, ...] | None:
        """The patient of each case of a site; ``None`` where the data set does not say."""
        if isinstance(self._dataset, Dataset):
            origins = self._dataset.origins
            if origins is None:
                return None
            return tuple(
                origins[split][index].patient for index in self.partition.sites[site][split]
            )
        cases = self._dataset.cases[split]
        return tuple(cases[index].patient for index in self.partition.sites[site][split])

    def attributes(
        self, sites: Iterable[str], split: Split
    ) -> tuple[Mapping[str, str], ...] | None:
        """What the table says of each case of some sites, by columns in lower case.

        ``None`` where the data set says nothing of its cases. Cases are in the order of
        :meth:`pooled`.
        """
        told: list[Mapping[str, str]] = []
        for site in sites:
            indices = self.partition.sites[site][split]
            if isinstance(self._dataset, Dataset):
                if self._dataset.origins is None:
                    return None
                origins = self._dataset.origins[split]
                told += [dict(origins[index].attributes) for index in indices]
            else:
                cases = self._dataset.cases[split]
                told += [dict(cases[index].attributes) for index in indices]
        return tuple(told)

    def raw(self, site: str, split: Split, listed: Listed | None = None) -> "Iterator[RawCase]":
        """The cases of a site one after the other as their files hold them, in their order.

        Args:
            site: the site.
            split: the split.
            listed: the files of a set whose images are kept in memory, where it has files of cases.

        Raises:
            ConsiliumError: a file cannot be read, or does not fit the data set.
        """
        from federated.data.folders.volume import Volume
        from federated.data.raw_cases import RawCase, raw_case

        files, profile = self.files(site, split, listed), self._profile(site)
        if files is None:
            for image, label in zip(*self._in_memory(site, split), strict=True):
                yield RawCase([Volume(image, None)], np.atleast_1d(label))
            return
        known = listed.family if listed is not None else None
        family = known if isinstance(self._dataset, Dataset) else self._dataset.family
        assert family is not None
        for case in files:
            yield raw_case(family, case, profile)

    def files(
        self, site: str, split: Split, listed: Listed | None = None
    ) -> tuple[CaseFiles, ...] | None:
        """What a folder says of the cases of a site, in their order; ``None`` of arrays.

        Args:
            site: the site.
            split: the split.
            listed: as of :meth:`raw`.
        """
        indices = self.partition.sites[site][split]
        if not isinstance(self._dataset, Dataset):
            return tuple(self._dataset.cases[split][index] for index in indices)
        origins = self._dataset.origins
        if listed is None or origins is None:
            return None
        return tuple(listed.cases[origins[split][index].name] for index in indices)

    def _in_memory(self, site: str, split: Split) -> tuple[Images, Labels]:
        cases = self.of(site, split)
        assert isinstance(cases, LabelledImages)
        return cases.images, cases.labels

    def _digests_of(self, site: str, split: Split) -> tuple[str, ...]:
        indices = list(self.partition.sites[site][split])
        if isinstance(self._dataset, Dataset):
            if self._dataset.origins is not None:
                return tuple(self._dataset.origins[split][index].record for index in indices)
            images, labels = self._dataset.images[split], self._dataset.labels[split]
            return labelled_digests(images[indices], labels[indices])
        cases = self._dataset.cases[split]
        return tuple(self._digest(cases[index]) for index in indices)

    def _make(self, sites: tuple[str, ...], split: Split) -> Cases:
        if isinstance(self._dataset, Dataset):
            parts = [self._labelled(self._dataset, site, split) for site in sites]
            if len(parts) == 1:
                return parts[0]
            return LabelledImages(
                np.concatenate([part.images for part in parts]),
                np.concatenate([part.labels for part in parts]),
                tuple(digest for part in parts for digest in part.records),
            )
        from federated.data.folders.segmented_cases import SegmentedCases, ShownCase

        shown: list[ShownCase] = []
        for site in sites:
            files = [self._dataset.cases[split][i] for i in self.partition.sites[site][split]]
            profile = self._profile(site)
            names: Sequence[str | None] = [None] * len(files)
            if self._shown and self._shown.by_record:
                names = identities([self._digest(case) for case in files])
            pairs = zip(files, names, strict=True)
            shown += [ShownCase(case, profile, name) for case, name in pairs]
        return SegmentedCases(self._dataset.family, shown, self._kept, self._digest)

    def _profile(self, site: str) -> ScannerProfile | None:
        if self._shown is None:
            return None
        return scanner_profile(self._shown.seed, site, self._dataset.info.dims)

    def _labelled(self, dataset: Dataset, site: str, split: Split) -> LabelledImages:
        indices, profile = list(self.partition.sites[site][split]), self._profile(site)
        images = dataset.images[split][indices]
        labels = dataset.labels[split][indices]
        records = self._records(site, split)
        if profile and indices:
            numbers = None
            if self._shown and self._shown.by_record:
                numbers = [noise_number(identity) for identity in identities(records)]
            images = apply_profile(images, profile, numbers)
        return LabelledImages(images, labels, records)
