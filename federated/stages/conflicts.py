"""Who of several parties lies for certain, by who contradicts whom.

Where one party says that what another has sent it is wrong, and nobody else can see it, one of the
two lies. Such pairs are the edges of a graph, and those who lie cover it: each pair has one of them
in it. If no more than so many lie as are taken to, they are one of the covers of at most that
size, and who is in all of these lies for certain.
"""

from collections.abc import Collection, Iterator

Pair = tuple[str, str]

# All covers of at most so many are looked at, up to 2 to that power.
MOST_LIARS = 10


def most_liars(parties: int) -> int:
    """How many of so many ``parties`` are taken to lie at most: fewer than half, but one of two.

    Of more than 22 it is :data:`MOST_LIARS`.
    """
    return min(max(1, (parties - 1) // 2), MOST_LIARS)


def certain_liars(pairs: Collection[Pair], most: int) -> frozenset[str]:
    """Who lies if no more than ``most`` do, and each pair has one of them in it.

    It is nobody where more must lie than that, or where nothing follows of anybody by name.
    """
    covers = list(_covers(sorted(pairs), most))
    return frozenset.intersection(*covers) if covers else frozenset()


def _covers(pairs: list[Pair], most: int) -> Iterator[frozenset[str]]:
    """Covers of at most ``most``, among which is a part of each cover that there is."""
    if not pairs:
        yield frozenset()
        return
    if not most:
        return
    for party in pairs[0]:
        left = [pair for pair in pairs if party not in pair]
        for cover in _covers(left, most - 1):
            yield cover | {party}
