"""SecAgg+: exact sums for every pattern of dropouts, and nothing else for the coordinator."""

import os
from dataclasses import replace
from itertools import product

import networkx
import numpy as np
import pytest
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from federated.errors import ConsiliumError
from federated.protection import CKKS, Cohort, PackedBFV, SecAggPlus
from federated.protection.secagg.graph import draw_graph, parts
from federated.protection.secagg.keys import KeyPair
from federated.protection.secagg.masks import CHUNK, add_mask, mask, smallest_word
from federated.protection.secagg.protocol import advertise
from federated.protection.secagg.round import Round
from federated.protection.secagg.shares import _inverse, _times, recover_seed, share_seed
from federated.protection.secagg.view import view
from tests.federated.protection.masked_round import SITES, Parties, begin

RNG = np.random.default_rng(0)


def aggregate(parties, quantised, sharing, responded, answering):
    total = sum(parties.masked(quantised, site, sharing) for site in responded)
    missing = [site for site in sharing if site not in responded]
    answers = {site: parties.answer(site, responded, missing, sharing) for site in answering}
    unmasked = parties.unmask(total, answers, responded, missing, sharing)
    assert unmasked.faulty == ()
    assert unmasked.accused == {}
    return unmasked.sums


STATES = ("before sharing", "before sending", "before answering", "stays")


def draw_quantised(sites=SITES, length=20):
    return {site: RNG.integers(-127, 128, length).astype(np.int32) for site in sites}


def enough(now, sharing, responded, answering):
    """Whether each site has enough holders left, and each who answers enough who responded."""
    # The masks of a site that is gone matter where a neighbour has added them.
    concerned = [s for s in sharing if s in responded or set(now.neighbours[s]) & set(responded)]
    holders = [sum(h in answering for h in now.holders(site)) for site in concerned]
    near = [sum(h in responded for h in now.holders(site)) for site in answering]
    connected = len(parts(now.neighbours, responded)) == 1
    return connected and min(holders) >= now.threshold and min(near, default=0) >= now.threshold


@pytest.mark.parametrize("degree", [5, 2])
def test_the_sum_is_exact_for_every_pattern_of_dropouts(degree):
    """Each of six sites drops out at one of three moments or stays; the threshold is four."""
    parties, quantised = begin(threshold=4 if degree == 5 else 2, degree=degree), draw_quantised()
    exact = refused = 0
    for number, pattern in enumerate(product(STATES, repeat=6)):
        staying = pattern.count("stays")
        if staying < 4 and number % 97:
            continue  # all of those that must succeed, some of the others
        at = dict(zip(SITES, pattern, strict=True))
        sharing = [s for s in SITES if at[s] != "before sharing"]
        responded = [s for s in sharing if at[s] != "before sending"]
        answering = [s for s in responded if at[s] == "stays"]
        given = (parties, quantised, sharing, responded, answering)
        if not responded:
            continue
        if enough(parties.now, sharing, responded, answering):
            found = aggregate(*given)
            np.testing.assert_array_equal(found, sum(quantised[site] for site in responded))
            exact += 1
        else:
            said = r"missing: |fewer than the threshold|no longer mask"
            with pytest.raises(ConsiliumError, match=said):
                aggregate(*given)
            refused += 1
    assert exact >= (154 if degree == 5 else 20)
    assert refused > 20


def uniform_p(masked):
    """p of a chi-square test that 16-bit words are uniform, by their high byte."""
    return stats.chisquare(np.bincount(masked >> 8, minlength=256)).pvalue


def test_one_masked_vector_looks_uniform_and_an_unmasked_one_does_not():
    quantised = draw_quantised(length=50_000)
    masked = begin(number=3).masked(quantised, "site-00")
    assert masked.dtype == np.uint16
    assert uniform_p(masked) > 1e-4
    assert uniform_p(quantised["site-00"].astype(np.int64).astype(np.uint16)) < 1e-100


def test_without_its_own_seed_known_to_the_coordinator_a_late_vector_stays_masked():
    """The masks with all neighbours removed, as for a site that was thought to have dropped out."""
    parties, quantised = begin(), draw_quantised(length=20_000)
    parties.now = replace(parties.now, neighbours={"site-00": ()}, threshold=1)
    masked = parties.masked(quantised, "site-00", ["site-00"])
    assert uniform_p(masked) > 1e-4


class TestRefusals:
    def test_both_shares_of_a_peer_in_one_question(self):
        with pytest.raises(ConsiliumError, match="asked in round 1 for both shares of site-03"):
            begin().view("site-00", SITES, ["site-03"])

    def test_a_name_told_twice(self):
        with pytest.raises(ConsiliumError, match="told site-03 more than once in round 1"):
            begin().view("site-00", [*SITES, "site-03"])
        with pytest.raises(ConsiliumError, match="told site-05 more than once in round 1"):
            begin().view("site-00", SITES[:5], ["site-05", "site-05"])

    def test_a_sum_without_the_site_itself(self):
        with pytest.raises(ConsiliumError, match="does not have site-00 itself in it"):
            begin().view("site-00", SITES[1:], SITES[:1])

    def test_to_send_where_too_few_have_exchanged_keys(self):
        with pytest.raises(ConsiliumError, match=r"only 3 have exchanged keys .*threshold of 4"):
            begin().masked(draw_quantised(), "site-00", SITES[:3])

    def test_to_answer_where_too_few_have_responded(self):
        with pytest.raises(ConsiliumError, match=r"only 3 sent updates .*threshold of 4"):
            begin().view("site-00", SITES[:3], SITES[3:])

    def test_an_answer_for_what_was_agreed_on_in_another_attempt_or_for_other_keys(self):
        parties = begin()
        told = parties.view("site-00", SITES)
        for changes in ({"number": 2}, {"attempt": 1}, {"state": "ab"}, {"quorum": 6}):
            other = Parties(
                replace(parties.now, **changes),
                parties.secrets,
                parties.advertised,
                parties.dealt,
            )
            with pytest.raises(ConsiliumError, match="agreed on in another, or for other keys"):
                other.answer_view("site-00", told)
        other = Parties(parties.now, parties.secrets, begin().advertised, parties.dealt)
        with pytest.raises(ConsiliumError, match="agreed on in another, or for other keys"):
            other.answer_view("site-00", told)

    def test_a_public_key_that_makes_the_secret_predictable(self):
        with pytest.raises(ConsiliumError, match="not usable"):
            KeyPair.new().common_key(bytes(32), "mask")


def ring(now, names):
    """The names of a ring in its order."""
    circle = [names[0]]
    while len(circle) < len(names):
        circle.append(next(p for p in now.neighbours[circle[-1]] if p not in circle))
    return circle


class TestSparseGraphs:
    """The audit's finding H5 A: arcs of a ring whose sums an honest coordinator could tell."""

    NAMES = tuple(f"site-{number:02d}" for number in range(12))

    def test_a_ring_that_may_fall_apart_is_refused_when_the_configuration_is_read(self):
        with pytest.raises(ConsiliumError, match=r"neighbours=2 cannot be with 12 sites.*apart"):
            SecAggPlus(neighbours=2).check(Cohort(12, 12, 1, 8))

    def test_no_site_and_no_coordinator_opens_the_sum_of_a_ring_in_two_arcs(self):
        parties = begin(self.NAMES, threshold=2, degree=2)
        circle = ring(parties.now, self.NAMES)
        gone = [circle[0], circle[3]]
        responded = [site for site in self.NAMES if site not in gone]
        said = rf"{' and |'.join(sorted(circle[1:3]))}.* no longer mask with the other 8"
        for site in responded:
            with pytest.raises(ConsiliumError, match=said):
                parties.view(site, responded, gone)
        quantised = draw_quantised(self.NAMES)
        total = sum(parties.masked(quantised, site) for site in responded)
        with pytest.raises(ConsiliumError, match=said):
            parties.unmask(total, {}, responded, gone)

    @given(
        count=st.integers(4, 16),
        half=st.integers(1, 3),
        seed=st.integers(0, 2**20),
        share_gone=st.floats(0, 0.9),
    )
    @settings(max_examples=60, deadline=None)
    def test_whoever_drops_out_an_unconnected_graph_gets_no_answer(
        self, count, half, seed, share_gone
    ):
        rng = np.random.default_rng(seed)
        names = [f"s{number:02d}" for number in range(count)]
        responded = [name for name in names if rng.random() >= share_gone] or names[:1]
        gone = [name for name in names if name not in responded]
        now = Round("run", seed, draw_graph(names, 2 * half, seed, 1), 1, 16)
        _, public = advertise(responded[0], "run", seed)
        told = dict.fromkeys(names, public)
        apart = not networkx.is_connected(
            networkx.Graph(
                [
                    (one, peer)
                    for one in responded
                    for peer in now.neighbours[one]
                    if peer in responded
                ]
                + [(one, one) for one in responded]
            )
        )
        if apart:
            with pytest.raises(ConsiliumError, match="no longer mask"):
                view(responded[0], told, responded, gone, now)
        else:
            assert view(responded[0], told, responded, gone, now).missing == tuple(gone)

    def test_a_name_that_advertised_no_keys_is_not_in_a_sum(self):
        with pytest.raises(ConsiliumError, match="ghost in it, which advertised no keys"):
            begin().view("site-00", [*SITES, "ghost"])
        with pytest.raises(ConsiliumError, match="told of ghost in round 1, which has no keys"):
            begin().view("site-00", SITES, ["ghost"])


class TestFewestSites:
    """The audit's finding H5 E: the "sum" of one site is its update."""

    SELECTED = ("site-00", "site-01", "site-02", "site-03")

    @pytest.mark.parametrize("protection", [SecAggPlus(), CKKS(), PackedBFV()])
    @pytest.mark.parametrize(
        ("responded", "said"),
        [
            (["site-00"], r"is of 1 of 4 sites.*min_sites=3.*missing: site-01"),
            (["site-00", "site-01"], r"is of 2 of 4 sites"),
            (["site-00", "site-01", "site-00"], "a site in it more than once"),
            (["site-00", "site-01", "ghost"], "has ghost in it, not selected in this round"),
            (["site-01", "site-02", "site-03"], "does not have site-00 itself in it"),
        ],
    )
    def test_a_site_helps_to_open_no_sum_of_too_few_or_of_others(self, protection, responded, said):
        with pytest.raises(ConsiliumError, match=said):
            protection.refuse_too_few("site-00", 1, self.SELECTED, responded)

    def test_three_are_enough_and_two_where_that_is_asked_for(self):
        three = SecAggPlus().refuse_too_few("site-00", 1, self.SELECTED, self.SELECTED[:3])
        assert three == frozenset(self.SELECTED[:3])
        two = PackedBFV(min_sites=2).refuse_too_few("site-00", 1, self.SELECTED, self.SELECTED[:2])
        assert len(two) == 2
        with pytest.raises(ValueError, match="greater than or equal to 2"):
            SecAggPlus(min_sites=1)

    def test_of_one_site_there_is_no_threshold(self):
        with pytest.raises(ConsiliumError, match="of one site there is none"):
            SecAggPlus().needed(1)


class TestParts:
    @pytest.mark.parametrize(("count", "degree"), [(10, 4), (101, 10), (6, 2), (6, 4), (6, 5)])
    def test_every_site_has_as_many_neighbours_and_is_theirs(self, count, degree):
        sites = [f"s{number:03d}" for number in range(count)]
        graph = draw_graph(sites, degree, 0, 1)
        for site in sites:
            assert len(set(graph[site])) == degree
            assert site not in graph[site]
            assert all(site in graph[peer] for peer in graph[site])
        assert graph == draw_graph(sites, degree, 0, 1)
        assert (graph == draw_graph(sites, degree, 0, 2)) == (degree == count - 1)

    @pytest.mark.parametrize("degree", [4, 5, 6, 7, 20])
    def test_as_many_neighbours_as_there_are_others_or_more_are_all_others(self, degree):
        for count in (4, 5):
            sites = [f"s{number}" for number in range(count)]
            everyone = {site: tuple(other for other in sites if other != site) for site in sites}
            assert draw_graph(sites, degree, 0, 1) == everyone

    def test_parts_of_a_graph_are_told_the_largest_first_and_of_equals_by_name(self):
        neighbours = {"a": (), "b": ("e",), "c": ("d", "x"), "d": ("c",), "e": ("b",), "x": ("c",)}
        found = parts(neighbours, "dcbea")
        assert found == [{"b", "e"}, {"c", "d"}, {"a"}]

    def test_two_sites_have_a_key_in_common_for_one_purpose(self):
        one, other = KeyPair.new(), KeyPair.new()
        key = one.common_key(other.public, "mask")
        assert key == other.common_key(one.public, "mask")
        assert key != one.common_key(other.public, "share")

    def test_fewer_shares_than_the_threshold_give_nothing(self):
        holders = ["a", "b", "c", "d"]
        key = os.urandom(16)
        shares = share_seed(key, holders, 3)
        assert recover_seed({h: shares[h] for h in "acd"}, holders, 3) == key
        with pytest.raises(ValueError, match="2 shares of 3"):
            recover_seed({h: shares[h] for h in "ac"}, holders, 3)
        with pytest.raises(ValueError, match="16 bytes"):
            recover_seed({h: shares[h] for h in "ac"} | {"d": shares["d"][1:]}, holders, 3)

    @pytest.mark.parametrize("threshold", [1, 3])
    def test_one_holder_may_be_enough_and_all_may_be_needed(self, threshold):
        seed, holders = os.urandom(16), ["a", "b", "c"]
        shares = share_seed(seed, holders, threshold)
        chosen = {holder: shares[holder] for holder in holders[-threshold:]}
        assert recover_seed(chosen, holders, threshold) == seed
        assert (seed in shares.values()) == (threshold == 1)

    @pytest.mark.parametrize("threshold", [-1, 0, 4])
    def test_no_share_is_the_seed_for_want_of_a_threshold(self, threshold):
        with pytest.raises(ValueError, match=f"a threshold of {threshold} for 3 holders"):
            share_seed(os.urandom(16), ["a", "b", "c"], threshold)

    @settings(max_examples=60, deadline=None)
    @given(st.randoms(use_true_random=False), st.integers(2, 40))
    def test_any_shares_give_what_the_library_that_made_them_puts_together(self, random, count):
        holders = [f"h{number}" for number in range(count)]
        threshold = random.randint(2, count)
        seed = random.choice([bytes(16), b"\xff" * 16, random.randbytes(16)])
        shares = share_seed(seed, holders, threshold)
        chosen = random.sample(holders, threshold)
        found = recover_seed({holder: shares[holder] for holder in chosen}, holders, threshold)
        theirs = [(holders.index(holder) + 1, shares[holder]) for holder in chosen]
        assert found == seed == bytes(Shamir.combine(theirs))
        # Of other shares than were dealt the two give the same too, and no seed.
        other = shares | {chosen[0]: random.randbytes(16)}
        wrong = recover_seed({holder: other[holder] for holder in chosen}, holders, threshold)
        theirs = [(holders.index(holder) + 1, other[holder]) for holder in chosen]
        assert seed != wrong == bytes(Shamir.combine(theirs))

    @given(st.integers(1, 2**128 - 1))
    def test_an_element_times_its_inverse_is_one(self, element):
        inverse = _inverse(element)
        assert 0 < inverse < 2**128
        assert _times(element, inverse) == _times(inverse, element) == 1

    def test_masks_depend_on_every_bit_of_their_key(self):
        """A 32-bit seed could be searched for; here each of 256 bits changes all of the mask."""
        key = os.urandom(32)
        first = mask(key, 64, 32)
        for bit in range(256):
            changed = bytearray(key)
            changed[bit // 8] ^= 1 << bit % 8
            assert (mask(bytes(changed), 64, 32) != first).all()

    @pytest.mark.parametrize("bits", [16, 32, 64])
    def test_a_mask_is_the_stream_of_aes_in_counter_mode_however_long_it_is(self, bits):
        key, length = os.urandom(32), 2 * CHUNK + 5
        stream = Cipher(AES(key), CTR(bytes(16))).encryptor().update(bytes(length * bits // 8))
        found = mask(key, length, bits)
        np.testing.assert_array_equal(found, np.frombuffer(stream, f"<u{bits // 8}"))

    def test_a_mask_that_is_taken_away_again_leaves_the_words(self):
        key, words = os.urandom(32), RNG.integers(0, 2**32, 100, np.uint32)
        masked = words.copy()
        add_mask(masked, key)
        np.testing.assert_array_equal(masked - words, mask(key, 100, 32))
        add_mask(masked, key, subtract=True)
        np.testing.assert_array_equal(masked, words)

    @pytest.mark.parametrize(
        ("largest", "bits"),
        [(0, 16), (2**15 - 1, 16), (2**15, 32), (2**31 - 1, 32), (2**31, 64), (2**63 - 1, 64)],
    )
    def test_words_are_as_short_as_the_sum_allows(self, largest, bits):
        assert smallest_word(largest) == bits

    def test_sums_that_fit_no_word_are_refused(self):
        with pytest.raises(ValueError, match="do not fit 64 bits"):
            smallest_word(2**63)
