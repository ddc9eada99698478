"""A site makes nothing twice with its secrets of an attempt, and helps to one sum of an update."""

import json
from dataclasses import replace

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection.secagg.answered import Answered
from federated.protection.secagg.once import Done
from tests.federated.protection.masked_round import SITES, begin

ME = "site-00"


class TestDone:
    def steps(self):
        """The parties, and what a site has done once it has signed."""
        parties = begin()
        quantised, now = parties.quantised(), parties.now
        shared = Done.nothing(now).share(parties.advertised, now)
        masked = shared.mask(quantised[ME], parties.advertised, SITES, now)
        return parties, quantised[ME], shared, masked, masked.sign(parties.view(ME, SITES), now)

    def test_the_same_again_changes_nothing_so_that_what_is_stored_is_sent(self):
        parties, quantised, shared, masked, signed = self.steps()
        now, told = parties.now, parties.view(ME, SITES)
        assert len({shared, masked, signed, Done.nothing(now)}) == 4
        assert shared.share(parties.advertised, now) == shared
        assert signed.share(parties.advertised, now) == signed
        assert masked.mask(quantised, parties.advertised, SITES[::-1], now) == masked
        assert signed.mask(quantised, parties.advertised, SITES, now) == signed
        assert signed.sign(told, now) == signed

    def test_masking_and_what_is_signed_are_the_same_bytes_again(self):
        parties = begin()
        quantised = parties.quantised()
        first, again = (parties.masked(quantised, ME) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        assert parties.view(ME, SITES).to_bytes() == parties.view(ME, SITES[::-1]).to_bytes()

    def test_shares_for_another_roster_are_refused(self):
        parties, _, shared, *_ = self.steps()
        with pytest.raises(ConsiliumError, match="made shares for something else before"):
            shared.share(begin().advertised, parties.now)

    def test_two_vectors_under_one_mask_are_refused(self):
        """Their difference would be that of the updates."""
        parties, quantised, _, masked, _ = self.steps()
        with pytest.raises(ConsiliumError, match="made masks of something else before"):
            masked.mask(quantised + 1, parties.advertised, SITES, parties.now)

    def test_one_vector_masked_with_two_sets_of_sites_is_refused(self):
        """The difference is the masks with those that are in one set alone."""
        parties, quantised, _, masked, _ = self.steps()
        with pytest.raises(ConsiliumError, match="made masks with other sites before"):
            masked.mask(quantised, parties.advertised, SITES[:5], parties.now)

    def test_no_site_masks_before_it_shared_or_with_the_keys_of_another_roster(self):
        parties, quantised, shared, *_ = self.steps()
        now = parties.now
        with pytest.raises(ConsiliumError, match="sites of another roster"):
            Done.nothing(now).mask(quantised, parties.advertised, SITES, now)
        with pytest.raises(ConsiliumError, match="sites of another roster"):
            shared.mask(quantised, begin().advertised, SITES, now)

    def test_a_second_view_is_not_signed(self):
        parties, _, _, _, signed = self.steps()
        with pytest.raises(ConsiliumError, match="a signature of something else before"):
            signed.sign(parties.view(ME, SITES[:5], SITES[5:]), parties.now)

    def test_a_view_without_masking_before_or_of_other_sites_is_not_signed(self):
        parties, _, shared, masked, _ = self.steps()
        now = parties.now
        with pytest.raises(ConsiliumError, match="differ in site-00, site-01"):
            shared.sign(parties.view(ME, SITES), now)
        with pytest.raises(ConsiliumError, match="they differ in site-05"):
            masked.sign(parties.view(ME, SITES[:5]), now)
        other = replace(parties.view(ME, SITES), roster="another")
        with pytest.raises(ConsiliumError, match="sites of another roster"):
            masked.sign(other, now)

    def test_nothing_that_was_done_in_an_attempt_counts_in_another(self):
        parties, quantised, shared, *_ = self.steps()
        for changes in ({"attempt": 1}, {"number": 2}, {"run": "other"}):
            now = replace(parties.now, **changes)
            with pytest.raises(ConsiliumError, match="another attempt"):
                shared.share(parties.advertised, now)
            with pytest.raises(ConsiliumError, match="another roster"):
                shared.mask(quantised, parties.advertised, SITES, now)

    def test_it_is_kept_as_json_and_nothing_else_is_read_as_it(self):
        *_, signed = self.steps()
        stored = json.loads(json.dumps(signed.to_json()))
        assert Done.from_json(stored) == signed
        bad = ([], None, {}, stored | {"more": ""}, stored | {"sharing": "abc"})
        for value in (*bad, stored | {"sharing": [1]}, stored | {"masked": None}):
            with pytest.raises(ConsiliumError, match="cannot be read"):
                Done.from_json(value)


class TestAnswered:
    """The audit's finding H6: two honest runs of one seed differ by one update."""

    def test_another_set_for_the_same_data_and_state_is_refused_whatever_run_asks(self):
        once = Answered().allow("data", "state", ["a", "b", "c"])
        for others in (["a", "b"], ["a", "b", "c", "d"], ["a", "b", "d"]):
            with pytest.raises(ConsiliumError, match=r"other sites: .* (c|d|c, d) would reveal"):
                once.allow("data", "state", others)

    def test_the_same_set_is_allowed_again_and_other_data_or_states_anew(self):
        once = Answered().allow("data", "state", ["c", "b", "a"])
        assert once.allow("data", "state", ["a", "b", "c", "a"]) == once
        more = once.allow("data", "next", ["a", "b"]).allow("other", "state", ["a", "b"])
        assert len(more.sums) == 3
        with pytest.raises(ConsiliumError, match="already answered"):
            more.allow("data", "state", ["a", "b"])
        assert Answered().sums == {}

    def test_another_party_under_the_name_of_one_is_another_site(self):
        """Two sums of the same names, of which one is of another hospital, differ by one update."""
        once = Answered().allow("data", "state", ["a (1)", "b (2)", "c (3)"], "a (1)")
        assert once.allow("data", "state", ["a (1)", "b (2)", "c (3)"], "a (1)") == once
        with pytest.raises(ConsiliumError, match=r"with or without c \(3\), c \(4\) would reveal"):
            once.allow("data", "state", ["a (1)", "b (2)", "c (4)"], "a (1)")

    def test_where_the_site_itself_has_another_key_names_are_compared(self):
        """As in a simulation, whose sites have other keys in each run."""
        once = Answered().allow("data", "state", ["a (1)", "b (2)"], "a (1)")
        assert once.allow("data", "state", ["a (8)", "b (9)"], "a (8)")
        with pytest.raises(ConsiliumError, match="with or without c would reveal"):
            once.allow("data", "state", ["a (8)", "b (9)", "c (7)"], "a (8)")

    def test_nothing_is_forgotten(self):
        kept = Answered()
        for number in range(300):
            kept = kept.allow("data", str(number), ["a", "b"])
        assert len(Answered.from_json(json.loads(json.dumps(kept.to_json()))).sums) == 300

    def test_it_is_kept_as_json_and_where_that_is_damaged_nothing_is_answered(self):
        kept = Answered().allow("data", "state", ["b", "a"]).allow("data", "next", ["a", "b"])
        stored = json.loads(json.dumps(kept.to_json()))
        assert stored == {"data": {"state": ["a", "b"], "next": ["a", "b"]}}
        assert Answered.from_json(stored) == kept
        for bad in ([], None, {"1": ["a"]}, {"d": {"s": "ab"}}, {"d": {"s": [1]}}, {"d": {"s": 1}}):
            with pytest.raises(ConsiliumError, match="cannot be read"):
                Answered.from_json(bad)

    def test_data_and_state_have_to_be_named(self):
        for key in (("", "state"), ("data", "")):
            with pytest.raises(ValueError, match="have to be named"):
                Answered().allow(*key, ["a"])

    def test_the_difference_of_two_sums_of_one_state_is_an_update(self):
        """What is refused: two honest rounds with the same updates, one of them without a site."""
        sums, seen = [], Answered()
        for sites in (SITES, SITES[:5]):
            parties = begin(sites, threshold=4, degree=5)
            quantised = dict(zip(SITES, np.arange(120).reshape(6, 20), strict=True))
            total = sum(parties.masked(quantised, site) for site in sites)
            views = {site: parties.view(site, sites) for site in sites}
            sums.append(parties.unmask(total, parties.answers(views), sites).sums)
            if sites == SITES:
                seen = seen.allow("cases", "start", sites)
            else:
                with pytest.raises(ConsiliumError, match="without site-05 would reveal"):
                    seen.allow("cases", "start", sites)
        np.testing.assert_array_equal(sums[0] - sums[1], quantised[SITES[5]])


def test_two_sites_get_their_sum_if_both_stay_and_nothing_else():
    parties = begin(SITES[:2], threshold=2, degree=1, quorum=2)
    quantised = parties.quantised()
    total = sum(parties.masked(quantised, site) for site in parties.sites)
    views = {site: parties.view(site, parties.sites) for site in parties.sites}
    answers = parties.answers(views)
    found = parties.unmask(total, answers, parties.sites)
    np.testing.assert_array_equal(found.sums, sum(quantised.values()))
    with pytest.raises(ConsiliumError, match=r"only 1 sent updates .* threshold of 2"):
        parties.view(ME, [ME], ["site-01"])
    with pytest.raises(ConsiliumError, match="1 answered rightly and 2 are needed"):
        parties.unmask(total, {ME: answers[ME]}, parties.sites)
