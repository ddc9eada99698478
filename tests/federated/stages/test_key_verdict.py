"""Whose key sites go on with, where makers and takers of keys lie."""

import random
from collections.abc import Callable, Iterable
from itertools import combinations, combinations_with_replacement, product
from types import SimpleNamespace
from typing import Any

import pytest

from federated.stages.conflicts import certain_liars, most_liars
from federated.stages.key_verdict import Heard, KeySearch

PUBLIC: Any = SimpleNamespace()
WORD: Any = SimpleNamespace()
# Whether a site takes the key of a maker.
Refuses = Callable[[str, str], bool]


def names(count: int) -> list[str]:
    return [f"site-{number:02d}" for number in range(count)]


def play(sites: list[str], refuses: Refuses) -> tuple[str | None, set[str], int]:
    """Whose key they go on with, who has none, and how many makers were tried."""
    search, settled, tries = KeySearch(len(sites)), None, 0
    for number, maker in enumerate(sites):
        if maker in search.lacking:
            continue
        tries += 1
        takers = [s for s in sites if s != maker and s not in search.lacking]
        refusing = {s: f"{s} cannot" for s in takers if refuses(maker, s)}
        holding = {s: WORD for s in [maker, *takers] if s not in refusing}
        heard = Heard(maker, PUBLIC, holding, refusing, {})
        last = all(later in search.lacking for later in sites[number + 1 :])
        if settled := search.settles(heard, last):
            break
    settled = settled or search.best()
    return settled.maker if settled else None, set(search.lacking), tries


def told(refusals: Iterable[tuple[str, str]]) -> Refuses:
    known = set(refusals)
    return lambda maker, site: (maker, site) in known


def lies(sites: list[str], liars: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each (maker, site) of which a liar can have the site refuse the maker's key."""
    return [
        (maker, site)
        for maker, site in product(sites, sites)
        if maker != site and (maker in liars) != (site in liars)
    ]


def test_without_a_lie_the_first_makers_key_is_everyones() -> None:
    assert play(names(4), told([])) == ("site-00", set(), 1)


def test_two_makers_that_seal_noise_to_the_same_sites_keep_nobody_out() -> None:
    sites = names(5)
    refusals = product(sites[:2], sites[2:4])
    assert play(sites, told(refusals)) == ("site-02", set(), 3)


def test_a_site_that_refuses_the_keys_of_all_makers_is_out_and_nobody_else() -> None:
    sites = names(5)
    # The first maker's key is everyone's by then.
    assert play(sites, told((maker, sites[4]) for maker in sites)) == ("site-00", {"site-04"}, 3)


def test_a_maker_that_most_refuse_is_out() -> None:
    sites = names(5)
    maker, lacking, _ = play(sites, told((sites[0], site) for site in sites[1:4]))
    assert (maker, lacking) == ("site-01", {"site-00"})


@pytest.mark.parametrize("count", [3, 4])
def test_one_liar_keeps_out_nobody_but_itself_whatever_it_says(count: int) -> None:
    sites = names(count)
    for liar in sites:
        pairs = lies(sites, (liar,))
        for chosen in product([False, True], repeat=len(pairs)):
            refusals = [pair for pair, wanted in zip(pairs, chosen, strict=True) if wanted]
            maker, lacking, _ = play(sites, told(refusals))
            assert maker is not None
            assert lacking <= {liar}


@pytest.mark.parametrize("count", [5, 6, 7, 8])
def test_fewer_liars_than_half_of_up_to_eight_sites_keep_out_nobody_else(count: int) -> None:
    sites, draw = names(count), random.Random(count)
    liars = list(combinations(sites, most_liars(count)))
    for number in range(400):
        chosen = draw.choice(liars)
        share = (0.1, 0.25, 0.5, 0.9)[number % 4]
        refusals = [pair for pair in lies(sites, chosen) if draw.random() < share]
        maker, lacking, _ = play(sites, told(refusals))
        assert maker is not None
        assert lacking <= set(chosen), refusals


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8])
def test_of_up_to_eight_sites_one_is_contradicted_by_certain_liars_alone(count: int) -> None:
    """All ways in which fewer than half can contradict the others, but for the liars' order."""
    sites, most = names(count), most_liars(count)
    liars, honest = sites[:most], sites[most:]
    for chosen in combinations_with_replacement(range(2 ** len(honest)), most):
        contradicted = [
            [site for bit, site in enumerate(honest) if who >> bit & 1] for who in chosen
        ]
        pairs = {
            (liar, site)
            for liar, others in zip(liars, contradicted, strict=True)
            for site in others
        }
        certain = certain_liars(pairs, most)
        assert certain <= set(liars)
        left = {site: {a for a, b in pairs if b == site} for site in honest}
        by_liar = dict(zip(liars, map(set, contradicted), strict=True))
        assert any(found <= certain for found in (left | by_liar).values())


def test_two_liars_that_contradict_all_others_are_found_by_who_covers_it() -> None:
    """Each of five is in one contradiction or two, so that no count tells who lies."""
    one, two, *others = sites = names(5)
    refusals = {(one, others[0]), (two, others[0]), (others[0], one), (others[1], one)}
    refusals |= {(others[2], two)}
    maker, lacking, _ = play(sites, told(refusals))
    assert maker in others
    assert lacking <= {one, two}


def test_of_two_sites_that_contradict_each_other_one_has_no_key() -> None:
    """One of them lies, and there is no sum without both: nothing can be had."""
    sites = names(2)
    for refusals in ([(sites[0], sites[1]), (sites[1], sites[0])], [(sites[0], sites[1])] * 2):
        maker, lacking, _ = play(sites, told(refusals))
        if len(set(refusals)) == 2:
            assert len(lacking) == 1
        else:
            assert (maker, lacking) == (sites[1], set())


def test_four_of_nine_that_lie_together_can_keep_an_honest_site_out() -> None:
    """What holds of eight sites ends there: several explanations by four liars are as good.

    Three pairs of sites, of which a seventh, eighth and ninth refuse what they have made, and the
    other way round.
    """
    sites = names(9)
    stars = {0: (3, 4), 1: (5, 6), 2: (7, 8)}
    pairs = {(sites[centre], sites[leaf]) for centre, leaves in stars.items() for leaf in leaves}
    assert certain_liars(pairs, most_liars(9)) == frozenset()
    refusals = pairs | {(leaf, centre) for centre, leaf in pairs}
    _, lacking, _ = play(sites, told(refusals))
    # The two of the first pair and the two other centres may be the four that lie.
    assert lacking == {sites[0]}


def test_nobody_is_called_a_liar_where_more_lie_than_are_taken_to() -> None:
    everyone = set(combinations(names(4), 2))
    assert certain_liars(everyone, most_liars(4)) == frozenset()
    assert play(names(4), lambda maker, site: True)[0] is not None
