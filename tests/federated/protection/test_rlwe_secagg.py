"""Sums under keys that nobody knows: exact for all dropouts, and no single update for anybody."""

import dataclasses
import tracemalloc
from itertools import product

import numpy as np
import pytest
from scipy import stats

from federated.errors import ConsiliumError
from federated.protection import Cohort, PackedBFV, RLWESecAgg, SecAggPlus, rlwe_secagg
from federated.protection.keys import new_run_key
from federated.protection.rlwe.encryption import decrypt_sum, public_polynomial
from federated.protection.rlwe.payload import join_content, split_content
from federated.protection.secagg import protocol
from federated.protection.secagg.consistency import Agreed
from federated.protection.secagg.recovery import Evidence
from federated.protection.secagg.view import view
from federated.protection.secagg_plus import Masking
from federated.update import CompressedUpdate

SITES = tuple(f"site-{number}" for number in range(5))
RNG = np.random.default_rng(0)


class Federation:
    """The parties of a round: what each site keeps, and what all have been told."""

    def __init__(self, sites=SITES, bits=8, number=1, protection=None):
        self.protection = protection or RLWESecAgg(dropout=0.3)
        self.sites, self.number = sites, number
        parts = {site: protocol.advertise(site, "run", number) for site in sites}
        self.secrets = {site: own for site, (own, _) in parts.items()}
        self.advertised = {site: public for site, (_, public) in parts.items()}
        self.round = self.protection.begin("run", number, sites, len(sites), 0, bits)
        self.dealt = sent = {
            s: protocol.share(self.secrets[s], self.advertised, self.round) for s in sites
        }
        self.sealed = {
            site: {sender: sent[sender][site] for sender in sites if site in sent[sender]}
            for site in sites
        }

    def send(self, site, values, sharing=None, weight=0.1):
        update = CompressedUpdate(site, self.number, 10, weight, len(values), values)
        masking = Masking(self.secrets[site], self.advertised, sharing or self.sites, self.round)
        return self.protection.protect(update, masking)

    def add(self, payloads):
        running = self.protection.open_sum(payloads[0].length, self.number, self.round)
        for payload in payloads:
            self.protection.add(running, payload)
        return self.protection.close(running)

    def unmask(self, total, responded, sharing=None, answering=None):
        """What is masked, in the clear."""
        missing = [site for site in sharing or self.sites if site not in responded]
        answers = {
            site: protocol.answer(
                self.secrets[site],
                {s: m for s, m in self.sealed[site].items() if s in (sharing or self.sites)},
                self.advertised,
                Agreed(view(site, self.advertised, list(responded), missing, self.round)),
                self.round,
            )
            for site in answering or responded
        }
        words = self.protection.masked_words(total, self.round)
        dealt = {dealer: self.dealt[dealer] for dealer in sharing or self.sites}
        evidence = Evidence(answers, dealt, self.advertised, self.round)
        return protocol.unmask(words, list(responded), missing, evidence).sums

    def reveal(self, total, responded, **who):
        sums = self.unmask(total, responded, **who)
        return self.protection.reveal(self.protection.unmasked(total, sums, self.round))


def draw(sites=SITES, length=300, bits=8):
    largest = 2 ** (bits - 1) - 1
    drawn = RNG.integers(-largest, largest + 1, (len(sites), length)).astype(np.int32)
    drawn[:, : length // 4], drawn[:, -length // 4 :] = largest, -largest
    return dict(zip(sites, drawn, strict=True))


@pytest.mark.parametrize("bits", [2, 7, 8, 16])
@pytest.mark.parametrize("length", [1, 2, 1023, 9000])
def test_a_sum_is_that_of_the_values_bit_for_bit(length, bits):
    federation, values = Federation(bits=bits), draw(length=length, bits=bits)
    total = federation.add([federation.send(site, values[site]) for site in SITES])
    found = federation.reveal(total, SITES)
    np.testing.assert_array_equal(found, sum(values.values()))
    assert found.dtype == np.float64
    assert total.weight == pytest.approx(0.5)


@pytest.mark.parametrize("degree", [1024, 2048, 4096])
@pytest.mark.parametrize("count", [3, 30])
def test_in_every_ring_and_for_many_sites(degree, count):
    """More polynomials than are worked on at a time."""
    sites = tuple(f"s{number:02d}" for number in range(count))
    protection = RLWESecAgg(degree=degree)
    federation = Federation(sites, protection=protection)
    values = draw(sites, 40_000)
    total = federation.add([federation.send(site, values[site]) for site in sites])
    assert federation.round.parameters(40_000).degree == degree
    np.testing.assert_array_equal(federation.reveal(total, sites), sum(values.values()))


def test_a_sum_is_exact_for_every_pattern_of_dropouts_down_to_the_threshold():
    """Each of five sites drops out before sharing, sending or answering, or stays."""
    federation, values = Federation(), draw(length=40)
    threshold = federation.protection.needed(5)
    exact = refused = 0
    for pattern in product(("share", "send", "answer", "stay"), repeat=5):
        at = dict(zip(SITES, pattern, strict=True))
        sharing = [s for s in SITES if at[s] != "share"]
        responded = [s for s in sharing if at[s] != "send"]
        answering = [s for s in responded if at[s] == "stay"]
        if len(answering) < threshold - 1:
            continue  # more of the same refusals
        who = {"sharing": sharing, "answering": answering}
        if len(answering) >= threshold:
            total = federation.add([federation.send(s, values[s], sharing) for s in responded])
            found = federation.reveal(total, responded, **who)
            np.testing.assert_array_equal(found, sum(values[site] for site in responded))
            exact += 1
        elif len(responded) >= threshold:
            total = federation.add([federation.send(s, values[s], sharing) for s in responded])
            with pytest.raises(ConsiliumError, match="cannot be unmasked"):
                federation.reveal(total, responded, **who)
            refused += 1
    assert exact == 1 + 5 * 3 + (10 * 9 if threshold == 3 else 0)
    assert refused > 10


def opened(residues, key, length, federation):
    """What a payload says to whoever takes a key for its own."""
    parameters = federation.round.parameters(length)
    try:
        return decrypt_sum(residues, key, length, federation.round.polynomials, parameters)
    except ValueError:
        # The same without the check, which only tells that the key is wrong.
        wide = dataclasses.replace(parameters, senders=2**40)
        object.__setattr__(wide, "scale", parameters.scale)
        object.__setattr__(wide, "primes", parameters.primes)
        return decrypt_sum(residues, key, length, federation.round.polynomials, wide)


def told(found, values):
    """How much of an update was found: the correlation of what was with what is."""
    return abs(np.corrcoef(found, values)[0, 1])


# Of 4000 pairs of independent numbers, by chance.
CHANCE = 5 / np.sqrt(4000)


class TestAttacks:
    """All payloads, the sum of keys and one colluding site: no other site's update."""

    @pytest.fixture
    def keys(self, monkeypatch):
        """The short keys that sites draw, which a test alone can see."""
        seen, made = [], rlwe_secagg.encrypt

        def spying(*arguments):
            hidden, key = made(*arguments)
            seen.append(key)
            return hidden, key

        monkeypatch.setattr(rlwe_secagg, "encrypt", spying)
        return seen

    def uniform(self, length=4000):
        return dict(zip(SITES, RNG.integers(-127, 128, (5, length)).astype(np.int32), strict=True))

    def test_neither_the_sum_of_keys_nor_a_colluding_sites_opens_another_update(self, keys):
        federation, values = Federation(), self.uniform()
        payloads = [federation.send(site, values[site]) for site in SITES]
        sums = federation.unmask(federation.add(payloads), SITES)
        parameters = federation.round.parameters(4000)
        half = 1 << (parameters.key_bits - 1)
        sum_of_keys = (sums + half) % (2 * half) - half
        np.testing.assert_array_equal(sum_of_keys, sum(keys))
        residues, masked = split_content(payloads[1], parameters, federation.round)
        signed = masked.astype(np.int64)
        guesses = {
            "sum": sum_of_keys,
            "mean": np.rint(sum_of_keys / 5).astype(np.int64),
            "a colluding site's": keys[0],
            "the sum less the colluding sites'": sum_of_keys - keys[0] - keys[2] - keys[3],
            "masked": (signed + half) % (2 * half) - half,
            "none": np.zeros_like(sum_of_keys),
        }
        for guess in guesses.values():
            assert told(opened(residues, guess, 4000, federation), values["site-1"]) < CHANCE
        # The attack works where the key is the right one.
        assert told(opened(residues, keys[1], 4000, federation), values["site-1"]) == 1

    def test_the_same_attack_reads_an_update_under_the_common_key_of_packed_bfv(self):
        values, protection = self.uniform(), PackedBFV()
        parameters = protection.parameters(4000, Cohort(5, 5, 1, 8))
        key = new_run_key(parameters).opened()
        update = CompressedUpdate("site-1", 1, 10, 0.1, 4000, values["site-1"])
        # The key is that of every site, site-0 too.
        assert told(protection.reveal(protection.protect(update, key), key), values["site-1"]) == 1

    def test_a_payload_looks_uniform_and_what_is_in_it_does_not(self, keys):
        federation = Federation()
        zeros = np.zeros(60_000, np.int32)
        payload = federation.send("site-1", zeros)
        parameters = federation.round.parameters(60_000)
        residues, masked = split_content(payload, parameters, federation.round)

        def p(words, below):
            shares = np.bincount((64 * words.astype(float) / below).astype(int), minlength=64)
            return stats.chisquare(shares).pvalue

        for row, prime in zip(residues, parameters.primes, strict=True):
            assert p(row, prime) > 1e-6
        below = 2**parameters.key_bits
        assert p(masked, below) > 1e-6
        assert p(keys[0] % below, below) < 1e-100

    def test_no_round_and_no_site_shares_a_key_and_no_round_a_polynomial(self, keys):
        """Equal updates of the same sites in five rounds, one of them made twice."""
        zeros, labels = np.zeros(2000, np.int32), []
        for number in (1, 2, 3, 3, 4):
            federation = Federation(number=number)
            labels.append(federation.round.polynomials)
            for site in SITES:
                federation.send(site, zeros)
        assert len({key.tobytes() for key in keys}) == len(keys) == 25
        ring = federation.round.parameters(2000).transforms[0]
        polynomials = {label: public_polynomial(label, 0, ring).tobytes() for label in labels}
        assert len(set(polynomials.values())) == 4
        # Two keys differ as independent ones do: no part of one is in another.
        apart = np.array([a - b for i, a in enumerate(keys) for b in keys[:i]])
        assert np.abs(apart.std(axis=1) / (6.4 * np.sqrt(2)) - 1).max() < 0.15

    def test_an_update_that_is_sent_again_is_the_same_bytes(self):
        """Other errors under the same masks would tell the two keys' difference."""
        federation, values = Federation(), draw()
        first, again = (federation.send("site-1", values["site-1"]) for _ in range(2))
        np.testing.assert_array_equal(first.body, again.body)


class TestPayloads:
    @pytest.fixture(scope="class")
    def federation(self):
        return Federation()

    def add(self, federation, payload, length=300):
        federation.protection.add(
            federation.protection.open_sum(length, 1, federation.round), payload
        )

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"round_number": 2}, "its round is 2, expected 1"),
            ({"length": 299}, "its length is 299, expected 300"),
            ({"scheme": "secagg_plus"}, "its scheme is secagg_plus, expected rlwe_secagg"),
            ({"context": "0" * 32}, "its context is"),
        ],
    )
    def test_of_another_round_length_or_scheme_is_refused(self, federation, changes, said):
        payload = federation.send("site-1", draw()["site-1"])
        with pytest.raises(ConsiliumError, match=said) as refused:
            self.add(federation, dataclasses.replace(payload, **changes))
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("cut", [0, 1, -1])
    def test_of_another_size_is_refused(self, federation, cut):
        payload = federation.send("site-1", draw()["site-1"])
        body = payload.body[:cut] if cut < 1 else np.append(payload.body, np.uint8(0))
        with pytest.raises(ConsiliumError, match=r"of site-1 in round 1 is damaged: it has \d+ by"):
            self.add(federation, dataclasses.replace(payload, body=body))

    def test_with_numbers_that_are_no_residues_is_refused(self, federation):
        payload = federation.send("site-1", draw()["site-1"])
        body = np.full_like(payload.body, 255)
        with pytest.raises(ConsiliumError, match="numbers that are not below the primes of degree"):
            self.add(federation, dataclasses.replace(payload, body=body))

    def test_with_a_prime_itself_for_a_residue_is_refused(self, federation):
        payload = federation.send("site-1", draw()["site-1"])
        parameters = federation.round.parameters(300)
        hidden, key = split_content(payload, parameters, federation.round)
        for residues, prime in zip(hidden, parameters.primes, strict=True):
            residues[-1] = prime - 1
            body = join_content(hidden, key, parameters)
            self.add(federation, dataclasses.replace(payload, body=body))
            residues[-1] = prime
            body = join_content(hidden, key, parameters)
            with pytest.raises(ConsiliumError, match="numbers that are not below the primes of"):
                self.add(federation, dataclasses.replace(payload, body=body))
            residues[-1] = 0

    def test_whose_key_was_changed_spoils_a_sum_which_is_then_refused(self, federation):
        values = draw()
        payloads = [federation.send(site, values[site]) for site in SITES]
        changed = payloads[2].body.copy()
        changed[-1] ^= 1
        total = federation.add(
            [*payloads[:2], dataclasses.replace(payloads[2], body=changed), *payloads[3:]]
        )
        with pytest.raises(
            ConsiliumError, match="cannot be opened with the sum of the sites' keys"
        ):
            federation.reveal(total, SITES)

    def test_takes_as_many_bytes_as_its_parameters_say_and_says_which_they_are(self, federation):
        payload = federation.send("site-1", draw()["site-1"])
        parameters = federation.round.parameters(300)
        assert payload.body.nbytes == sum(parameters.sizes(300))
        assert payload.encoding == parameters.describe()

    def test_takes_no_more_than_packed_bfv_at_the_sizes_in_the_adr(self):
        for sites, length in product((10, 100), (3628, 181_408)):
            cohort = Cohort(sites, sites, 1, 8)
            key = new_run_key(PackedBFV().parameters(length, cohort)).opened()
            update = CompressedUpdate("a", 1, 1, 0.1, length, draw(("a",), length)["a"])
            encrypted = PackedBFV().protect(update, key).body.nbytes
            round_ = RLWESecAgg().begin("run", 1, ["a"], sites, 0, 8)
            assert sum(round_.parameters(length).sizes(length)) < encrypted

    def test_are_added_in_memory_that_does_not_grow_with_their_number(self, federation):
        payload = federation.send("site-1", draw(length=50_000)["site-1"])

        def peak(count):
            running = federation.protection.open_sum(50_000, 1, federation.round)
            federation.protection.add(running, payload)
            tracemalloc.start()
            for _ in range(count):
                federation.protection.add(running, payload)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

        assert peak(20) < peak(2) + 20_000

    def test_none_at_all_have_no_sum(self, federation):
        with pytest.raises(ConsiliumError, match="No update arrived"):
            federation.protection.close(federation.protection.open_sum(300, 1, federation.round))


class TestSettings:
    def test_without_quantised_values_there_is_nothing_to_add(self):
        with pytest.raises(ConsiliumError, match=r"rlwe_secagg adds integers.*compression\.bits"):
            RLWESecAgg().check(Cohort(5, 5, 1, None))

    def test_a_ring_without_room_is_refused_with_the_remedy(self):
        RLWESecAgg(degree=1024).check(Cohort(10, 10, 1, 8))
        said = r"no room for the sum of 100 sites.*degree=1024.*Lower compression\.bits"
        with pytest.raises(ConsiliumError, match=said):
            RLWESecAgg(degree=1024).check(Cohort(100, 100, 1, 16))

    def test_its_graph_and_its_smallest_sum_are_those_of_secagg_plus(self):
        ours, theirs = RLWESecAgg(), SecAggPlus()
        cohort = Cohort(50, 50, 1, 8)
        assert ours.graph(50) == theirs.graph(50)
        said = ours.report(cohort, None)
        assert said.items() > (theirs.report(cohort, None) | {"name": "rlwe_secagg"}).items()
        assert (said["computational_security"], said["sigma_beside_sums"]) == (128, 3.2)
        with pytest.raises(ConsiliumError, match=r"rlwe_secagg hides an update .*min_sites=3"):
            ours.check(Cohort(2, 2, 1, 8))

    @pytest.mark.parametrize(("selected", "bits"), [(3, 16), (394, 16), (395, 32)])
    def test_words_are_as_long_as_the_sum_of_all_keys_needs(self, selected, bits):
        round_ = RLWESecAgg().begin("run", 1, SITES, selected, 0, 8)
        assert round_.bits == bits
        assert round_.parameters(10).key_bits <= bits

    def test_rounds_of_other_settings_have_another_fingerprint(self):
        def fingerprint(degree=None, selected=5, bits=8, number=1):
            protection = RLWESecAgg(degree=degree)
            return protection.begin("run", number, SITES, selected, 0, bits).fingerprint

        others = [{}, {"degree": 2048}, {"selected": 6}, {"bits": 7}, {"number": 2}]
        assert len({fingerprint(**other) for other in others}) == len(others)
