"""Who masks with whom: a k-regular graph over a round's sites (Bell et al. 2020, Section 3)."""

from collections.abc import Collection, Mapping, Sequence

from federated.randomness import numpy_generator

Neighbours = Mapping[str, tuple[str, ...]]


def draw_graph(sites: Sequence[str], degree: int, seed: int, round_number: int) -> Neighbours:
    """The neighbours of each site, in the order of names.

    The graph is a Harary graph over the sites in a random order: each is joined to the ``degree /
    2`` before and after it on a circle. With as many neighbours as there are other sites it is
    complete, as in Bonawitz et al. 2017. Everyone draws the same graph from the experiment's seed.
    The order has to be random with respect to who drops out and who colludes, so names have to be
    fixed before the seed (``bounds.py``); it need not be secret.

    Args:
        sites: the names of the sites.
        degree: even, and at least 2; a degree larger than the number of other sites means all of
            them.
        seed: the experiment's.
        round_number: the round.
    """
    names = sorted(sites)
    if degree >= len(names) - 1:
        return {site: tuple(other for other in names if other != site) for site in names}
    rng = numpy_generator(seed, purpose="secagg graph", round_number=round_number)
    circle = [names[index] for index in rng.permutation(len(names))]
    result = {}
    for place, site in enumerate(circle):
        steps = [*range(-degree // 2, 0), *range(1, degree // 2 + 1)]
        result[site] = tuple(sorted(circle[(place + step) % len(circle)] for step in steps))
    return result


def parts(neighbours: Neighbours, sites: Collection[str]) -> list[frozenset[str]]:
    """The connected parts of the graph that is left with ``sites`` alone, the largest first.

    Masks cancel within a part, so that if there is more than one, the sum of each can be told.
    """
    left, found = set(sites), []
    while left:
        reached, next_sites = set(), {min(left)}
        while next_sites:
            reached |= next_sites
            left -= next_sites
            next_sites = {peer for site in next_sites for peer in neighbours.get(site, ())} & left
        found.append(frozenset(reached))
    return sorted(found, key=lambda part: (-len(part), min(part)))
