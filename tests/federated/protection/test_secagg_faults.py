"""Shares that are wrong: whoever sends one is found and named, and the sum is right without it.

The audit's finding M6: a wrong share of an own seed was not noticed, and the sum was wrong.
"""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from federated.errors import ConsiliumError, TooFewSitesError
from federated.protection.secagg import protocol
from federated.protection.secagg.dealing import (
    DEALT_BYTES,
    HASH_BYTES,
    NONCE,
    _key,
    open_dealt,
    refuse_dealt,
)
from federated.protection.secagg.keys import new_seed
from federated.protection.secagg.recovery import TRIES, SumLostError
from federated.protection.secagg.roster import own_commitment, refuse_unusable
from federated.protection.secagg.round import Round, Share
from federated.protection.secagg.view import refuse_unopenable
from tests.federated.protection.masked_round import SITES, begin, begin_round

RESPONDED, MISSING = SITES[:5], SITES[5:]


def stage_four(parties, responded=RESPONDED, missing=MISSING):
    """The masked sum, the true one, and what each site of the sum answers."""
    quantised = parties.quantised()
    total = sum(parties.masked(quantised, site) for site in responded)
    views = {site: parties.view(site, responded, missing) for site in responded}
    return total, sum(quantised[site] for site in responded), parties.answers(views)


def with_share(answer, dealer, share):
    return replace(answer, shares={**answer.shares, dealer: share})


def opens(parties, total, answers, responded=RESPONDED, missing=MISSING):
    return parties.unmask(total, answers, responded, missing)


@pytest.mark.parametrize("dealer", ["site-02", "site-05"])
def test_a_wrong_share_of_an_own_seed_or_of_a_masking_key_is_found_and_left_out(dealer):
    parties = begin()
    total, wanted, answers = stage_four(parties)
    kind = answers["site-00"].shares[dealer].kind
    assert kind == ("own" if dealer in RESPONDED else "masking")
    for value in (bytes(16), b"", bytes(17), answers["site-01"].shares[dealer].value):
        bad = answers | {"site-00": with_share(answers["site-00"], dealer, Share(kind, value))}
        found = opens(parties, total, bad)
        np.testing.assert_array_equal(found.sums, wanted)
        assert found.faulty == ("site-00",)
        assert found.accused == {}


def test_a_share_of_the_other_kind_is_a_wrong_one():
    parties = begin()
    total, wanted, answers = stage_four(parties)
    other = open_dealt(
        parties.secrets["site-03"],
        "site-02",
        parties.dealt["site-02"]["site-03"],
        parties.advertised["site-02"],
        parties.now,
    )["masking"]
    bad = answers | {"site-03": with_share(answers["site-03"], "site-02", other)}
    found = opens(parties, total, bad)
    np.testing.assert_array_equal(found.sums, wanted)
    assert found.faulty == ("site-03",)


@pytest.mark.parametrize("many", [0, 1, 2, 3])
def test_as_many_wrong_shares_as_leave_the_threshold_are_left_out_and_one_more_is_an_error(many):
    """Of six holders of a seed all answer, and four are needed."""
    parties = begin()
    total, wanted, answers = stage_four(parties, SITES, ())
    liars = SITES[2 : 2 + many]
    for liar in liars:
        answers[liar] = with_share(answers[liar], "site-01", Share("own", new_seed()))
    if many <= 2:
        found = opens(parties, total, answers, SITES, ())
        np.testing.assert_array_equal(found.sums, wanted)
        assert found.faulty == liars
        return
    said = r"of site-01 3 answered rightly and 4 .* from site-02, site-03, site-04\."
    with pytest.raises(ConsiliumError, match=said):
        opens(parties, total, answers, SITES, ())


def test_who_is_missing_and_who_is_wrong_are_told_apart():
    parties = begin()
    total, _, answers = stage_four(parties)
    answers["site-00"] = with_share(answers["site-00"], "site-02", Share("own", bytes(16)))
    del answers["site-04"]
    with pytest.raises(ConsiliumError, match=r"missing: site-04, site-05; other .* from site-00\."):
        opens(parties, total, answers)


def test_wrong_shares_by_each_of_several_sites_for_different_dealers():
    parties = begin()
    total, wanted, answers = stage_four(parties, SITES, ())
    for liar, dealer in (("site-00", "site-01"), ("site-02", "site-03"), ("site-04", "site-04")):
        answers[liar] = with_share(answers[liar], dealer, Share("own", bytes(16)))
    found = opens(parties, total, answers, SITES, ())
    np.testing.assert_array_equal(found.sums, wanted)
    assert found.faulty == ("site-00", "site-02", "site-04")


def test_no_right_share_is_ever_blamed_for_a_wrong_one_beside_it():
    """Any share of any holder of any site, one at a time."""
    parties = begin()
    total, wanted, answers = stage_four(parties)
    for holder in RESPONDED:
        for dealer, share in answers[holder].shares.items():
            wrong = Share(share.kind, bytes(byte ^ 1 for byte in share.value))
            bad = with_share(answers[holder], dealer, wrong)
            found = opens(parties, total, answers | {holder: bad})
            np.testing.assert_array_equal(found.sums, wanted)
            assert found.faulty == (holder,)


def unreadable(secrets, inbox, advertised, round_):
    """The dealers whose shares a holder sees to be wrong on receipt."""
    return tuple(
        dealer
        for dealer in round_.holders(secrets.site)
        if dealer in inbox
        and open_dealt(secrets, dealer, inbox[dealer], advertised[dealer], round_) is None
    )


class TestDealers:
    """What a site may send in place of shares of the seeds that it committed to."""

    def dealt_anew(self, parties, dealer, **seeds):
        """Shares of other seeds by a dealer, whose secrets are what they were otherwise."""
        other = replace(parties.secrets[dealer], **seeds)
        return protocol.share(other, parties.advertised, parties.now)

    @pytest.mark.parametrize("seed", ["own_seed", "masking_seed"])
    def test_shares_of_another_seed_than_committed_to_name_the_dealer(self, seed):
        parties = begin()
        dealer = "site-02" if seed == "own_seed" else "site-05"
        parties.dealt[dealer] = self.dealt_anew(parties, dealer, **{seed: new_seed()})
        total, _, answers = stage_four(parties)
        assert all(answer.wrongly_dealt == () for answer in answers.values())
        said = rf"the shares that {dealer} dealt do not give .* The fault is {dealer}'s"
        with pytest.raises(SumLostError, match=said) as caught:
            opens(parties, total, answers)
        assert caught.value.faulty == {dealer}

    def test_shares_that_are_wrong_for_some_do_not_stop_the_round_and_name_the_dealer(self):
        """Each has its hash, so that its holder cannot see that it is of another polynomial."""
        parties = begin()
        others = self.dealt_anew(parties, "site-02", own_seed=new_seed())
        for holder in ("site-00", "site-03"):
            parties.dealt["site-02"][holder] = others[holder]
        total, wanted, answers = stage_four(parties, SITES, ())
        found = opens(parties, total, answers, SITES, ())
        np.testing.assert_array_equal(found.sums, wanted)
        assert found.faulty == ("site-02",)

    def test_no_more_sets_of_shares_are_tried_than_take_some_seconds(self):
        assert TRIES <= 1000

    @pytest.mark.parametrize("place", [0, HASH_BYTES, 2 * HASH_BYTES, DEALT_BYTES - 1])
    def test_a_holder_sees_on_receipt_that_what_it_was_dealt_is_wrong(self, place):
        parties = begin()
        content = bytearray(parties.dealt["site-02"]["site-00"])
        content[place] ^= 1
        parties.dealt["site-02"]["site-00"] = bytes(content)
        given = (parties.secrets["site-00"], parties.inbox("site-00"), parties.advertised)
        assert unreadable(*given, parties.now) == ("site-02",)
        total, wanted, answers = stage_four(parties)
        assert answers["site-00"].wrongly_dealt == ("site-02",)
        assert "site-02" not in answers["site-00"].shares
        found = opens(parties, total, answers)
        np.testing.assert_array_equal(found.sums, wanted)
        assert found.faulty == ()
        assert found.accused == {"site-02": ("site-00",)}

    def test_hashes_that_are_not_those_of_the_sealed_shares_are_seen_by_the_holder(self):
        """The dealer seals them itself, so that the seal is good."""
        parties = begin()
        now, secrets = parties.now, parties.secrets["site-02"]
        hashes = parties.dealt["site-02"]["site-00"][:HASH_BYTES] + bytes(HASH_BYTES)
        key = _key(secrets, parties.advertised["site-00"], "site-02", "site-00", now)
        sealed = ChaCha20Poly1305(key).encrypt(NONCE, bytes(32), hashes)
        parties.dealt["site-02"]["site-00"] = hashes + sealed
        given = (parties.secrets["site-00"], parties.inbox("site-00"), parties.advertised)
        assert unreadable(*given, now) == ("site-02",)

    def test_too_few_good_shares_of_a_dealer_name_it_and_who_says_so(self):
        parties = begin()
        for holder in SITES[:3]:
            parties.dealt["site-02"][holder] = bytes(DEALT_BYTES)
        total, _, answers = stage_four(parties, SITES, ())
        said = "site-00, site-01, site-02 say that site-02 dealt them wrong ones"
        with pytest.raises(SumLostError, match=said) as caught:
            opens(parties, total, answers, SITES, ())
        assert caught.value.faulty == {"site-02"}

    def test_two_that_accuse_a_dealer_are_enough_where_a_third_is_missing(self):
        parties = begin()
        for holder in SITES[:2]:
            parties.dealt["site-02"][holder] = bytes(DEALT_BYTES)
        total, _, answers = stage_four(parties, SITES, ())
        told = {site: answers[site] for site in SITES[:5]}
        with pytest.raises(SumLostError, match="site-00, site-01 say that site-02") as caught:
            opens(parties, total, told, SITES, ())
        assert caught.value.faulty == {"site-02"}

    def test_one_site_alone_that_accuses_a_dealer_has_nobody_left_out(self):
        """As many holders are missing as may be, so that its share would be needed."""
        parties = begin()
        total, _, answers = stage_four(parties, SITES, ())
        liar = replace(
            answers["site-01"],
            shares={d: s for d, s in answers["site-01"].shares.items() if d != "site-02"},
            wrongly_dealt=("site-02",),
        )
        enough = parties.now.threshold
        told = {site: answers[site] for site in SITES[:enough]} | {"site-01": liar}
        with pytest.raises(SumLostError, match="site-01 say that site-02") as caught:
            opens(parties, total, told, SITES, ())
        assert caught.value.faulty == frozenset()

    def test_where_too_many_are_missing_no_lie_is_blamed_for_it(self):
        parties = begin()
        parties.dealt["site-02"]["site-00"] = bytes(DEALT_BYTES)
        total, _, answers = stage_four(parties, SITES, ())
        told = {site: answers[site] for site in SITES[: parties.now.threshold - 1]}
        with pytest.raises(ConsiliumError, match="missing") as caught:
            opens(parties, total, told, SITES, ())
        assert not isinstance(caught.value, SumLostError)

    def test_the_shares_of_another_round_attempt_or_dealer_are_wrong_ones(self):
        parties = begin()
        secrets, public = parties.secrets["site-00"], parties.advertised
        dealt = parties.dealt["site-02"]["site-00"]
        for changes in ({"number": 2}, {"attempt": 1}, {"run": "other"}):
            later = replace(parties.now, **changes)
            assert open_dealt(secrets, "site-02", dealt, public["site-02"], later) is None
        assert open_dealt(secrets, "site-01", dealt, public["site-01"], parties.now) is None
        # Of the last round, with its secrets, sent again in this one.
        last = begin_round(replace(parties.now, number=0))
        parties.dealt["site-02"] = last.dealt["site-02"]
        total, _, answers = stage_four(parties)
        assert all(answer.wrongly_dealt == ("site-02",) for answer in answers.values())
        with pytest.raises(ConsiliumError, match="say that site-02 dealt them wrong ones"):
            opens(parties, total, answers)

    def test_the_coordinator_takes_no_shares_for_others_than_the_holders_nor_of_another_length(
        self,
    ):
        parties = begin()
        dealt = parties.dealt["site-02"]
        refuse_dealt("site-02", dealt, parties.now)
        assert all(len(content) == DEALT_BYTES for content in dealt.values())
        for wrong, name in (
            (dealt | {"ghost": dealt["site-00"]}, "ghost"),
            ({h: c for h, c in dealt.items() if h != "site-04"}, "site-04"),
            (dealt | {"site-03": dealt["site-03"] + b"x"}, "site-03"),
            (dealt | {"site-03": b""}, "site-03"),
        ):
            with pytest.raises(ConsiliumError, match=f"6 holders .* not so for {name}"):
                refuse_dealt("site-02", wrong, parties.now)


class TestCommitment:
    @pytest.mark.parametrize("part", ["sealing", "masking", "commitment"])
    def test_the_coordinator_passes_on_no_keys_that_would_stop_the_others(self, part):
        _, public = protocol.advertise("site-00", "run", 1)
        refuse_unusable("site-00", public)
        for value in (b"", bytes(31), bytes(32) if part != "commitment" else bytes(33)):
            with pytest.raises(ConsiliumError, match="What site-00 advertises is refused"):
                refuse_unusable("site-00", replace(public, **{part: value}))

    def test_it_is_another_for_every_seed_site_and_attempt(self):
        seed = new_seed()
        secrets, public = protocol.advertise("site-00", "run", 1)
        label = "consilium secagg+|run|1|0|own commitment|site-00"
        assert public.commitment == own_commitment(secrets.own_seed, label)
        assert len(public.commitment) == 32
        labels = {label, label[:-1] + "1", label.replace("|0|", "|1|")}
        flipped = {bytes([seed[0] ^ 1 << bit]) + seed[1:] for bit in range(8)}
        found = {own_commitment(s, text) for s in (seed, *flipped) for text in labels}
        assert len(found) == 9 * 3

    def test_it_is_not_what_the_mask_is_made_from(self):
        parties = begin()
        seed = parties.secrets["site-00"].own_seed
        assert protocol._own_key(seed, parties.now) != parties.advertised["site-00"].commitment


class TestASumThatCannotBeOpened:
    """Nobody is asked for one: whom a coordinator asks may help to no other of that start state."""

    # A ring: each site's holders are itself and the two beside it.
    SITES = tuple("abcdef")
    RING = Round(
        "run", 3, {s: tuple(sorted(("fabcde"[i], "bcdefa"[i]))) for i, s in enumerate(SITES)}, 2, 16
    )

    @pytest.mark.parametrize(
        ("responded", "missing"),
        [
            (SITES, ()),
            # Two of the holders of each are there, those of the missing ones included.
            ("abde", "cf"),
        ],
    )
    def test_as_many_holders_of_each_as_the_threshold_are_enough(self, responded, missing):
        refuse_unopenable(responded, missing, self.RING)

    @pytest.mark.parametrize(
        ("responded", "missing", "site", "near"),
        [
            # Of one that dropped out too few hold shares, and of one that is in the sum.
            ("abc", "def", "d", 1),
            ("ace", "", "a", 1),
            ("", "e", "e", 0),
        ],
    )
    def test_one_fewer_of_any_site_is_refused_by_name(self, responded, missing, site, near):
        with pytest.raises(TooFewSitesError) as told:
            refuse_unopenable(responded, missing, self.RING)
        said = str(told.value)
        assert f"of {site} and its neighbours only {near} sent updates" in said
        absent = ", ".join(sorted(set(self.SITES) - set(responded)))
        assert f"missing: {absent}. Nothing" in said
