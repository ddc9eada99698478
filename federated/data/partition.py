"""Which case belongs to which site, and what may be known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from federated.data.dataset import Split


@dataclass(frozen=True)
class Partition:
    """The indices of the cases of each site and split, in ascending order.

    ``draws`` is how often the shares were drawn until every site had its floor of cases; ``moved``
    is how many cases were moved between sites where no draw gave that.
    """

    sites: Mapping[str, Mapping[Split, tuple[int, ...]]]
    draws: int
    moved: int

    def cases(self, site: str, split: Split) -> int:
        """The number of cases of a site in a split."""
        return len(self.sites[site][split])

    def counts(self) -> "CaseCounts":
        """The number of cases of every site and split, which the coordinator may know."""
        return CaseCounts(
            {
                site: {split: len(cases) for split, cases in splits.items()}
                for site, splits in self.sites.items()
            }
        )


@dataclass(frozen=True)
class CaseCounts:
    """How many cases each site has in each split, which everyone may know of a partition."""

    sites: Mapping[str, Mapping[Split, int]]

    def cases(self, site: str, split: Split) -> int:
        """The number of cases of a site in a split."""
        return self.sites[site][split]


def leave_out(
    partition: Partition, dropped: Mapping[str, Mapping[Split, Sequence[int]]]
) -> Partition:
    """The partition without the ``dropped`` cases of each site and split."""
    return Partition(
        {
            site: {
                split: tuple(i for i in indices if i not in dropped.get(site, {}).get(split, ()))
                for split, indices in splits.items()
            }
            for site, splits in partition.sites.items()
        },
        partition.draws,
        partition.moved,
    )
