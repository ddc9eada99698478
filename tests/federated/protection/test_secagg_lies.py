"""A coordinator that tells sites different things, and sites that help it: what it can open.

Each attack is done to the end with what is to stop it left out, so that it is known to be one, and
then again with it (the audit's finding H5 B and C, and M5).
"""

from contextlib import suppress
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection import Cohort, SecAggPlus
from federated.protection.secagg import protocol
from federated.protection.secagg.bounds import Shares, quorum
from federated.protection.secagg.consistency import Said, check_consistent
from federated.protection.secagg.dealing import open_dealt
from federated.protection.secagg.graph import draw_graph
from federated.protection.secagg.masks import add_mask
from federated.protection.secagg.once import Done
from federated.protection.secagg.roster import roster_digest
from federated.protection.secagg.round import Round, masking_pair
from federated.protection.secagg.shares import recover_seed
from federated.protection.secagg.view import View, refuse_parts
from tests.federated.protection.masked_round import Parties, begin, begin_round

TEN = tuple(f"site-{number:02d}" for number in range(10))


def parties_of(sites, **settings):
    protection = SecAggPlus(**settings)
    protection.check(Cohort(len(sites), len(sites), 1, 8))
    return begin_round(protection.begin("run", 1, sites, len(sites), 0, 8))


def seed_of(parties, dealer, kind, answers, colluders):
    """What the coordinator recovers from answers and from all that colluding sites hold."""
    now = parties.now
    shares = {
        holder: answer.shares[dealer].value
        for holder, answer in answers.items()
        if dealer in answer.shares and answer.shares[dealer].kind == kind
    }
    for holder in colluders:
        public, dealt = parties.advertised[dealer], parties.dealt[dealer][holder]
        held = open_dealt(parties.secrets[holder], dealer, dealt, public, now)
        shares[holder] = held[kind].value
    return recover_seed(shares, now.holders(dealer), now.threshold)


def without_masks(parties, masked, site, own_seed, pairs):
    """A masked vector less the site's own mask and those with peers whose keys are known."""
    now, words = parties.now, masked.copy()
    add_mask(words, protocol._own_key(own_seed, now), subtract=True)
    for peer, pair in pairs.items():
        key = protocol._pair_key(peer, pair, site, parties.advertised[site], now)
        add_mask(words, key, subtract=site < peer)
    return words.view(f"<i{now.bits // 8}").astype(int)


def pairs_of(parties, sites):
    return {site: parties.secrets[site].masking for site in sites}


def refused(parties, views, colluders):
    """That no site answers, though all who collude sign whatever helps."""
    for site, own in views.items():
        said = {other: Said(told.digest, True) for other, told in views.items()}
        said |= {colluder: Said(own.digest, True) for colluder in colluders}
        with pytest.raises(ConsiliumError, match="signed something else"):
            check_consistent(site, own, said, parties.now)
    return True


def test_two_halves_that_are_told_of_a_site_that_it_responded_and_that_it_did_not():
    """The audit's B: ten sites, of which four collude, as many as the configuration says."""
    parties = parties_of(TEN, corrupted=0.4)
    assert (parties.now.threshold, parties.now.quorum) == (7, 8)
    victim, colluders, others = TEN[0], TEN[1:5], TEN[5:]
    rest = TEN[1:]
    views = {site: parties.view(site, TEN) for site in (victim, *others[:2])}
    views |= {site: parties.view(site, rest, [victim]) for site in others[2:]}
    answers = {site: parties.answer_view(site, told) for site, told in views.items()}
    own = seed_of(parties, victim, "own", answers, colluders)
    pair = masking_pair(seed_of(parties, victim, "masking", answers, colluders))
    quantised = parties.quantised()
    words = without_masks(parties, parties.masked(quantised, victim), victim, own, {})
    for peer in rest:
        key = protocol._pair_key(victim, pair, peer, parties.advertised[peer], parties.now)
        words = words.astype(np.int16).view(np.uint16)
        add_mask(words, key, subtract=victim < peer)
    np.testing.assert_array_equal(words.view(np.int16), quantised[victim])
    assert refused(parties, views, colluders)


def test_a_site_that_is_told_that_the_only_other_honest_one_is_missing():
    """The audit's C: three sites, of which one colludes."""
    parties = parties_of(TEN[:3], corrupted=0.34)
    assert (parties.now.threshold, parties.now.quorum) == (2, 3)
    victim, colluder, third = TEN[:3]
    views = {victim: parties.view(victim, [victim, colluder], [third])}
    answers = {victim: parties.answer_view(victim, views[victim])}
    own = seed_of(parties, victim, "own", answers, [colluder])
    key = masking_pair(seed_of(parties, third, "masking", answers, [colluder]))
    pairs = pairs_of(parties, [colluder]) | {third: key}
    quantised = parties.quantised()
    masked = parties.masked(quantised, victim)
    found = without_masks(parties, masked, victim, own, pairs)
    np.testing.assert_array_equal(found, quantised[victim])
    said = {victim: Said(views[victim].digest, True), colluder: Said(views[victim].digest, True)}
    with pytest.raises(
        ConsiliumError, match=r"2 sites, 2 of its holders .* 3 and 2 are needed\. If"
    ):
        check_consistent(victim, views[victim], said, parties.now)


def test_many_lists_that_each_leave_out_a_few_give_the_sum_of_two_sites_of_ten():
    """One site colludes and the threshold is six; every list has six sites or more."""
    parties = parties_of(TEN, threshold=6)
    colluder, pair, ring = TEN[0], TEN[1:3], TEN[3:]
    missing = {ring[n]: [ring[(n + step) % 7] for step in (1, 2, 3, 4)] for n in range(7)}
    missing |= {pair[0]: list(ring[:4]), pair[1]: list(ring[4:])}
    views = {
        site: parties.view(site, [s for s in TEN if s not in gone], gone)
        for site, gone in missing.items()
    }
    answers = {site: parties.answer_view(site, told) for site, told in views.items()}
    pairs = {
        site: masking_pair(seed_of(parties, site, "masking", answers, [colluder])) for site in ring
    } | pairs_of(parties, [colluder])
    quantised = parties.quantised()
    found = np.zeros(20, int)
    for site in pair:
        own = seed_of(parties, site, "own", answers, [colluder])
        found += without_masks(parties, parties.masked(quantised, site), site, own, pairs)
    wanted = quantised[pair[0]] + quantised[pair[1]]
    np.testing.assert_array_equal(found.astype(np.int16), wanted)
    assert refused(parties, views, [colluder])


def test_a_site_that_masked_with_few_who_are_then_all_said_to_be_missing():
    """All sites sign one view; only the list to mask with was another for the victim."""
    parties = parties_of(TEN, corrupted=0.3, dropout=0.3)
    colluders, victim, gone = TEN[:3], TEN[3], TEN[7:]
    few, responded = (*colluders, victim, *gone), TEN[:7]
    assert (parties.now.threshold, parties.now.quorum) == (7, 7)
    quantised = parties.quantised()
    masked = parties.masked(quantised, victim, few)
    views = {site: parties.view(site, responded, gone) for site in responded}
    answers = parties.answers(views)
    own = seed_of(parties, victim, "own", answers, colluders)
    pairs = pairs_of(parties, colluders) | {
        site: masking_pair(seed_of(parties, site, "masking", answers, colluders)) for site in gone
    }
    found = without_masks(parties, masked, victim, own, pairs)
    np.testing.assert_array_equal(found, quantised[victim])

    done = Done.nothing(parties.now).share(parties.advertised, parties.now)
    done = done.mask(quantised[victim], parties.advertised, few, parties.now)
    with pytest.raises(ConsiliumError, match=r"masked with; they differ in site-04, site-05, s"):
        done.sign(views[victim], parties.now)


class TestKeysOfTheCoordinator:
    """It tells the victim keys of its own for all others, and has all that the victim sends."""

    SITES = TEN[:4]

    def told(self):
        parties = begin(self.SITES, threshold=3, degree=3)
        victim = self.SITES[0]
        own = {site: protocol.advertise(site, "run", 1) for site in self.SITES[1:]}
        secrets = {site: pair[0] for site, pair in own.items()}
        keys = {site: pair[1] for site, pair in own.items()}
        advertised = {victim: parties.advertised[victim]} | keys
        dealt = protocol.share(parties.secrets[victim], advertised, parties.now)
        told = Parties(
            parties.now, secrets | {victim: parties.secrets[victim]}, advertised, {victim: dealt}
        )
        return parties, told, victim

    def test_it_reads_the_update_where_nobody_checks_signatures(self):
        parties, told, victim = self.told()
        quantised = parties.quantised()
        masked = told.masked(quantised, victim)
        own = seed_of(told, victim, "own", {}, self.SITES[1:])
        pairs = pairs_of(told, self.SITES[1:])
        found = without_masks(told, masked, victim, own, pairs)
        np.testing.assert_array_equal(found, quantised[victim])

    def test_sites_that_know_different_keys_do_not_answer(self):
        parties, told, victim = self.told()
        assert roster_digest(parties.advertised, parties.now) != roster_digest(
            told.advertised, parties.now
        )
        views = {site: parties.view(site, self.SITES) for site in self.SITES[1:]}
        views[victim] = told.view(victim, self.SITES)
        said = {site: Said(own.digest, True) for site, own in views.items()}
        with pytest.raises(
            ConsiliumError,
            match=r"are needed; site-01, site-02, site-03 signed something else\. If",
        ):
            check_consistent(victim, views[victim], said, parties.now)


def test_more_colluding_sites_than_the_configuration_says_can_have_two_lists_signed():
    """Where the guarantee ends, which who-sees-what.md states: four of ten sites by default."""
    parties = parties_of(TEN)
    assert (parties.now.threshold, parties.now.quorum) == (7, 6)
    victim, rest = TEN[0], TEN[1:]
    for colluding in (1, 2, 3, 4):
        colluders, others = TEN[1 : 1 + colluding], TEN[1 + colluding :]
        ways = set()
        for size in range(len(others) + 1):
            views = {site: parties.view(site, TEN) for site in (victim, *others[:size])}
            views |= {site: parties.view(site, rest, [victim]) for site in others[size:]}
            answered = set()
            for site, own in views.items():
                said = {other: Said(told.digest, True) for other, told in views.items()}
                said |= {colluder: Said(own.digest, True) for colluder in colluders}
                with suppress(ConsiliumError):
                    answered.add(check_consistent(site, own, said, parties.now).view.digest)
            ways.add(len(answered))
        assert max(ways) == (2 if colluding == 4 else 1)


class TestConsistencyRound:
    def test_whoever_signs_nothing_or_is_not_in_the_roster_does_not_count(self):
        parties = begin(threshold=4, quorum=5)
        views = {site: parties.view(site, parties.sites) for site in parties.sites}
        own = views["site-00"]
        said = {site: Said(own.digest, True) for site in parties.sites[:4]}
        forged = {"site-04": Said(own.digest, False), "site-05": Said(own.digest, False)}
        ghosts = {f"ghost-{n}": Said(own.digest, True) for n in range(3)}
        with pytest.raises(ConsiliumError, match="of ghost-0, ghost-1, ghost-2, site-04, site-05"):
            check_consistent("site-00", own, said | forged | ghosts, parties.now)
        enough = said | {"site-05": Said(own.digest, True)}
        agreed = check_consistent("site-00", own, enough, parties.now)
        assert agreed.view == own
        assert agreed.signers == (*parties.sites[:4], "site-05")

    def test_in_a_sparse_graph_the_threshold_is_of_ones_own_holders(self):
        parties = begin(TEN, threshold=3, degree=2, quorum=6)
        holders = parties.now.holders("site-00")
        own = parties.view("site-00", TEN)
        others = [site for site in TEN if site not in holders]
        said = {site: Said(own.digest, True) for site in (*others, *holders[:2])}
        assert len(said) == 9
        with pytest.raises(ConsiliumError, match="9 sites, 2 of its holders among them"):
            check_consistent("site-00", own, said, parties.now)

    def test_without_a_quorum_given_it_is_more_than_half(self):
        parties = begin(threshold=1)
        own = parties.view("site-00", parties.sites)
        said = {site: Said(own.digest, True) for site in parties.sites}
        with pytest.raises(ConsiliumError, match=r"3 sites, .* and 4 and 1 are needed"):
            check_consistent("site-00", own, dict(list(said.items())[:3]), parties.now)
        assert check_consistent("site-00", own, dict(list(said.items())[:4]), parties.now)

    def test_views_that_differ_in_anything_are_not_the_same_bytes(self):
        now = begin().now
        one = View(now.fingerprint, now.label("view"), "s", "r", ("a", "b"), ("c",))
        others = [
            replace(one, **change)
            for change in (
                {"state": "t"},
                {"roster": "q"},
                {"responded": ("a",), "missing": ("b", "c")},
                {"responded": ("a", "b", "c"), "missing": ()},
                {"responded": ('a", "b',)},
                {"label": replace(now, attempt=2).label("view")},
                {"round_digest": replace(now, threshold=5).fingerprint},
            )
        ]
        assert len({view.to_bytes() for view in (one, *others)}) == len(others) + 1

    @pytest.mark.parametrize("sites", [2, 3, 4, 5, 6, 7])
    def test_no_two_views_are_both_answered_whoever_signs_what(self, sites):
        """Every way in which honest sites can be split; those who collude sign both views.

        One colluding site more than the quorum is for and there is a way.
        """
        names = TEN[:sites]
        graph = draw_graph(names, sites - 1, 0, 1)
        for colluding in range(sites - 1):
            asked = quorum(sites, Shares(0.0, (colluding + 0.5) / sites))
            now = Round("run", 1, graph, 1, 16, quorum=asked)
            views = [View("d", "l", "s", "r", tuple(names), (which,)) for which in "ab"]
            for more in (0, 2):
                found = False
                if colluding + more > sites:
                    continue
                honest = names[colluding + more :]
                for split in product((0, 1), repeat=len(honest)):
                    answered = set()
                    for which in (0, 1):
                        said = {site: Said(views[which].digest, True) for site in names}
                        said |= {
                            site: Said(views[side].digest, True)
                            for site, side in zip(honest, split, strict=True)
                        }
                        with suppress(ConsiliumError):
                            check_consistent(names[0], views[which], said, now)
                            answered.add(which)
                    found |= len(answered) == 2
                assert found == (colluding + more >= 2 * asked - sites)
                assert not (found and more == 0)

    def test_every_sum_that_can_be_opened_is_of_the_one_list_that_was_signed(self):
        """Six sites, one of them colluding, threshold and quorum four: all lists told to each.

        A list has all sites, or leaves out two honest ones. The coordinator opens the sum of honest
        sites X if it has the own seed of each of X and the masking key of each other honest site.
        """
        honest, colluders, threshold = range(5), 1, 4
        asked = quorum(6, Shares(0.0, 0.2))
        assert asked == 4
        lists = [
            [frozenset(), *(frozenset(p) for p in combinations(honest, 2) if site not in p)]
            for site in honest
        ]
        smallest_without, opened_with = 5, 0
        for told in product(*lists):
            for checked in (False, True):
                answering = [
                    missing
                    for missing in told
                    if not checked or told.count(missing) + colluders >= asked
                ]
                needed = threshold - colluders
                gone = {s for s in honest if sum(s in m for m in answering) >= needed}
                own = {s for s in honest if sum(s not in m for m in answering) >= needed}
                opened = [
                    set(honest) - set(out)
                    for size in range(5)
                    for out in combinations(sorted(gone), size)
                    if set(honest) - set(out) <= own
                ]
                for these in opened:
                    if checked:
                        assert {frozenset(set(honest) - these)} == set(answering)
                        opened_with += 1
                    else:
                        smallest_without = min(smallest_without, len(these))
        assert smallest_without == 2
        assert opened_with > 0


def test_of_three_groups_that_no_longer_mask_with_each_other_the_smallest_is_named():
    """Of sites in a row those that are left are three groups, of three, two and one."""
    row = {
        f"site-{n:02d}": {f"site-{m:02d}" for m in (n - 1, n + 1) if 0 <= m < 8} for n in range(8)
    }
    now = replace(begin(TEN, threshold=3).now, neighbours=row)
    left = [site for site in row if site not in ("site-03", "site-06")]
    said = "that site-07 no longer mask with the other 5: the sum of each group"
    with pytest.raises(ConsiliumError, match=said):
        refuse_parts(left, now)
