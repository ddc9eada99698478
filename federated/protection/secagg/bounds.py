"""How many neighbours and which threshold a round of SecAgg+ needs (Bell et al. 2020, Section 3).

Of n sites at most ⌊δn⌋ drop out and at most ⌊γn⌋ look at what they get and tell the coordinator. A
graph of degree k with threshold t among the h = k + 1 holders of a site's shares has to do three
things, each for all sites at once except with probability 2^-40 (their definition of a good graph):

1. *Connected.* Those who neither drop out nor collude stay connected: else the coordinator learns
   the sum of each part, and not of all. The graph joins each site to the k/2 before and behind it
   on a circle in random order, so it falls apart only where two stretches of k/2 sites in a row are
   all gone or colluding. There are fewer than n²/2 pairs of stretches, and one pair is gone with
   probability Π_{i<k} (b−i)/(n−i), b = ⌊δn⌋ + ⌊γn⌋.
2. *Covered.* Fewer than t of any site's holders collude, else they could recover both of its seeds.
   The graph is drawn over those who have advertised keys: as few as n − ⌊δn⌋, and all who collude
   among them. Of k neighbours, drawn from one less than these, as many collude as a hypergeometric
   variable says; the bound is n times its tail.
3. *Recoverable.* At least t of any site's holders stay, itself among them if it does: the sum of
   the tails of the same with ⌊δn⌋, and of those sites that drop out themselves with one less. Else
   nothing is told, but the round is lost.

Besides, sites answer only once a quorum of q = ⌊(n + ⌊γn⌋)/2⌋ + 1 of them has signed that they were
told the same (``consistency.py``), so that as many have to stay. Without that, a coordinator could
tell some holders that a site had dropped out and the others that it had not, and get both of its
secrets with 2t − h colluding holders; that more than half of the holders are needed at least keeps
this from a coordinator on its own.

With the complete graph all three hold for certain where γn < t ≤ n − δn; no sites are gone or
collude beyond these shares. The order on the circle comes from the experiment's seed, which
everybody knows: the bounds for a sparse graph hold against sites that were chosen, and that drop
out, without regard to that order. So names have to be fixed before the seed, and a coordinator that
picks seed, names or dropouts to its liking is outside of them; the complete graph needs none of
this.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import log2

import numpy as np
import numpy.typing as npt

# −log2 of the largest probability that a graph is not as it should be.
SIGMA = 40
# Up to this many neighbours, all other sites are taken: masks cost little, and nothing is left to
# chance.
FEWEST_NEIGHBOURS = 20


@dataclass(frozen=True)
class Graph:
    """The degree of a round's graph, and how many holders of a site's shares have to stay."""

    neighbours: int
    threshold: int


@dataclass(frozen=True)
class Shares:
    """How many of n sites may drop out, and how many may collude, as shares of n."""

    dropout: float
    corrupted: float

    def gone(self, sites: int) -> int:
        """The number of sites that may drop out."""
        return int(self.dropout * sites)

    def colluding(self, sites: int) -> int:
        """The number of sites that may collude."""
        return int(self.corrupted * sites)


@lru_cache(maxsize=16)
def unconnected(sites: int, neighbours: int, shares: Shares) -> float:
    """log2 of a bound on the probability that the honest sites that stay are not connected."""
    if neighbours >= sites - 1:
        return float("-inf")
    bad = shares.gone(sites) + shares.colluding(sites)
    if bad < neighbours:
        return float("-inf")
    pair = sum(log2((bad - i) / (sites - i)) for i in range(neighbours))
    return 2 * log2(sites) - 1 + pair


def uncovered(sites: int, graph: Graph, shares: Shares) -> float:
    """log2 of a bound on the probability that ``threshold`` holders of some site collude.

    The site itself is honest, and is one of its own holders. Others may have dropped out before the
    graph was drawn, so that those who collude are a larger share of the sites it is drawn from. Or
    nobody has dropped out, and more of them are a site's neighbours if it has all sites for
    neighbours.
    """
    others, colluding = sites - 1, shares.colluding(sites)
    left = {others, others - shares.gone(sites)}
    tails = (_tail(those, graph, colluding, graph.threshold) for those in left)
    return _log2(sites * max(tails))


def quorum(sites: int, shares: Shares) -> int:
    """How many sites have to sign one view, so that no other view can have as many.

    Two sets of so many have more than ⌊γn⌋ sites in common, and who does not collude signs once.
    """
    return (sites + shares.colluding(sites)) // 2 + 1


def unrecoverable(sites: int, graph: Graph, shares: Shares) -> float:
    """log2 of a bound on the probability that too few holders of some site stay."""
    gone, lost = shares.gone(sites), graph.neighbours + 1 - graph.threshold
    staying = (sites - gone) * _tail(sites - 1, graph, gone, lost + 1)
    # A site that drops out does not hold its own shares any more.
    leaving = gone * _tail(sites - 1, graph, gone - 1, lost) if gone else 0.0
    return _log2(staying + leaving)


def _tail(others: int, graph: Graph, marked: int, least: int) -> float:
    """P[at least ``least`` of a site's neighbours, drawn from ``others``, are ``marked``]."""
    drawn, marked = min(graph.neighbours, others), min(marked, others)
    if least > min(drawn, marked):
        return 0.0
    return float(_tails(others, drawn, marked)[max(least, 0)])


@lru_cache(maxsize=16)
def _tails(others: int, drawn: int, marked: int) -> npt.NDArray[np.float64]:
    """P[at least k of ``drawn`` are ``marked``] for each k: one sum for all thresholds of a degree.

    Drawn without replacement from ``others``; an array ``(drawn + 1,)``.
    """
    from scipy.stats import hypergeom

    of_each = hypergeom.pmf(np.arange(drawn + 1), others, marked, drawn)
    # The smallest first, so that no small tail is lost in the sum.
    tails: npt.NDArray[np.float64] = np.cumsum(of_each[::-1])[::-1]
    return tails


def _log2(probability: float) -> float:
    return log2(probability) if probability > 0 else float("-inf")


def broken(sites: int, graph: Graph, shares: Shares) -> str | None:
    """What a graph does not do with probability 1 − 2^-40, in words; ``None`` if it does all."""
    holders = graph.neighbours + 1
    if not holders < 2 * graph.threshold <= 2 * holders:
        return (
            f"the threshold has to be from {holders // 2 + 1}, more than half of a site's "
            f"{holders} holders, to {holders}"
        )
    faults = {
        f"the graph of {graph.neighbours} neighbours may fall apart": unconnected(
            sites, graph.neighbours, shares
        ),
        f"{graph.threshold} of a site's {holders} holders may collude": uncovered(
            sites, graph, shares
        ),
        f"fewer than {graph.threshold} of a site's {holders} holders may stay": unrecoverable(
            sites, graph, shares
        ),
    }
    for fault, bound in faults.items():
        if not bound <= -SIGMA:  # NaN is refused too
            return f"{fault}, with a probability of up to 2^{min(0.0, bound):.0f}"
    asked, staying = quorum(sites, shares), sites - shares.gone(sites)
    if asked > staying:
        return (
            f"{asked} of {sites} sites have to sign that they were told the same, and as few as "
            f"{staying} may stay"
        )
    return None


def threshold_for(sites: int, neighbours: int, shares: Shares) -> int | None:
    """The threshold nearest to two thirds of the holders that does what it has to.

    It is ``None`` if none does.
    """
    if not unconnected(sites, neighbours, shares) <= -SIGMA:
        return None
    holders = neighbours + 1
    least = holders // 2 + 1
    wanted = max(least, -(-2 * holders // 3))
    for threshold in sorted(range(least, holders + 1), key=lambda t: (abs(t - wanted), t)):
        if broken(sites, Graph(neighbours, threshold), shares) is None:
            return threshold
    return None


@lru_cache(maxsize=64)
def fit_graph(
    sites: int, shares: Shares, neighbours: int | None = None, threshold: int | None = None
) -> Graph | None:
    """The graph with the fewest neighbours that does what it has to; ``None`` if there is none.

    Args:
        sites: n, the number of sites selected in a round.
        shares: how many drop out and collude.
        neighbours: the degree, if it is given.
        threshold: the threshold, if it is given.
    """
    everyone = sites - 1
    degrees = [*range(FEWEST_NEIGHBOURS, everyone, 2), everyone]
    for degree in degrees if neighbours is None else [neighbours]:
        found = threshold_for(sites, degree, shares) if threshold is None else threshold
        if found is not None and broken(sites, Graph(degree, found), shares) is None:
            return Graph(degree, found)
    return None
