"""Sums of payloads: exact or as close as promised, and refused where they do not fit."""

import dataclasses
import tracemalloc
import zlib

import numpy as np
import pyarrow
import pytest

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.protection import CKKS, Cohort, PackedBFV, Plain
from federated.protection.base import SUM
from federated.protection.keys import new_run_key
from federated.protection.packing import pack, unpack
from federated.protection.parameters import MOST_BITS
from federated.protection.seal import join
from federated.protection.seal_bytes import HEADER, MAGIC, ZLIB, ZSTD, unpacked
from federated.settings.base import Settings
from federated.update import CompressedUpdate

RNG = np.random.default_rng(0)
KEYED = pytest.mark.parametrize("protection", [CKKS(), PackedBFV()], ids=["ckks", "packed_bfv"])


def update(numbers, site="site-0", weight=0.1, round_number=1, positions=None, length=None):
    length = len(numbers) if length is None else length
    return CompressedUpdate(site, round_number, 10, weight, length, numbers, positions)


def quantised(sites, length, bits=8):
    """As large as they can be, all of one sign in places: the worst case for the head room."""
    most = largest_quantised(bits)
    drawn = RNG.integers(-most, most + 1, (sites, length)).astype(np.int32)
    drawn[:, : length // 4], drawn[:, -length // 4 :] = most, -most
    return drawn


def cohort(sites, bits, rounds=20):
    return Cohort(sites, sites, rounds, bits)


def key_for(protection, length, sites, bits=8):
    parameters = protection.parameters(length, cohort(sites, bits))
    return new_run_key(parameters).opened()


def summed(protection, updates, key=None):
    context = key.public if key else None
    running = None
    for one in updates:
        payload = protection.protect(one, key)
        running = running or protection.open_sum(payload.length, 1, context)
        protection.add(running, payload)
    total = protection.close(running)
    assert total.site == SUM
    return protection.reveal(total, key), total


class TestPlain:
    def test_the_sum_is_that_of_the_numbers(self):
        vectors = RNG.normal(size=(3, 50)).astype(np.float32)
        numbers, total = summed(
            Plain(), [update(v, weight=w) for v, w in zip(vectors, (1, 2, 3), strict=True)]
        )
        np.testing.assert_allclose(numbers, vectors.sum(axis=0), rtol=1e-6, atol=1e-6)
        assert total.weight == 6
        assert total.body.nbytes == 200

    def test_a_value_takes_four_bytes_and_a_level_one_or_two(self):
        for numbers, size in (
            (np.zeros(100, np.float32), 400),
            (np.full(100, -127, np.int32), 100),
            (np.full(100, 128, np.int32), 200),
        ):
            assert Plain().protect(update(numbers)).body.nbytes == size

    def test_sums_of_quantised_values_are_exact_beyond_one_byte(self):
        drawn = quantised(200, 40)
        numbers, _ = summed(Plain(), [update(one) for one in drawn])
        np.testing.assert_array_equal(numbers, drawn.sum(axis=0))

    def test_positions_of_their_own_add_up_where_they_stand(self):
        first = update(np.float32([1, 2]), positions=np.array([0, 3]), length=6)
        second = update(np.float32([10, 20]), positions=np.array([3, 5]), length=6)
        numbers, total = summed(Plain(), [first, second])
        np.testing.assert_array_equal(numbers, [1, 0, 0, 12, 0, 20])
        assert total.body.nbytes == 12
        np.testing.assert_array_equal(total.positions, [0, 3, 5])


class TestPackedBFV:
    @pytest.mark.parametrize(("sites", "bits"), [(3, 2), (10, 8), (128, 8), (20, 16)])
    def test_sums_are_exact_at_the_largest_quantised_values(self, sites, bits):
        drawn = quantised(sites, 3000, bits)
        key = key_for(PackedBFV(), 3000, sites, bits)
        numbers, _ = summed(PackedBFV(), [update(one) for one in drawn], key)
        np.testing.assert_array_equal(numbers, drawn.sum(axis=0))

    def test_a_dense_update_is_smaller_than_the_plain_one(self):
        drawn = quantised(1, 100_000)[0]
        key = key_for(PackedBFV(), len(drawn), 128)
        payload = PackedBFV().protect(update(drawn), key)
        assert payload.body.nbytes < 3 * len(drawn)

    def test_a_sum_of_several_ciphertexts_is_in_the_order_of_the_quantised_values(self):
        drawn = quantised(3, 20_000, 16)
        key = key_for(PackedBFV(), 20_000, 3, 16)
        assert key.public.parameters.ciphertexts(20_000) > 2
        numbers, _ = summed(PackedBFV(), [update(one) for one in drawn], key)
        np.testing.assert_array_equal(numbers, drawn.sum(axis=0))

    def test_a_sum_over_those_who_arrived_is_as_good(self):
        drawn = quantised(3, 500)
        key = key_for(PackedBFV(), 500, 100)
        numbers, total = summed(PackedBFV(), [update(v, weight=0.01) for v in drawn], key)
        np.testing.assert_array_equal(numbers, drawn.sum(axis=0))
        assert total.weight == pytest.approx(0.03)

    def test_packing_takes_apart_what_it_put_together(self):
        base, digits = 2 * 5 * 127 + 1, 4
        drawn = quantised(5, 77)
        slots = sum(pack(one, base, digits) for one in drawn)
        np.testing.assert_array_equal(unpack(slots, base, digits)[:77], drawn.sum(axis=0))

    def test_the_smallest_ring_is_taken_for_few_values(self):
        degrees = [PackedBFV().parameters(n, cohort(10, 8)).degree for n in (500, 4000, 100_000)]
        assert degrees == [1024, 2048, 4096]

    def test_without_quantised_values_there_is_nothing_to_add(self):
        with pytest.raises(ConsiliumError, match=r"set compression\.bits"):
            PackedBFV().parameters(100, cohort(10, None))

    def test_too_many_sites_for_given_parameters_are_refused_with_the_remedy(self):
        given = PackedBFV(degree=2048, coefficient_bits=(54,), plain_bits=20)
        assert given.parameters(100, cohort(10, 8)).digits == 1
        with pytest.raises(ConsiliumError, match=r"no head room for 5000 sites.*plain_bits=20"):
            given.parameters(100, cohort(5000, 8))

    def test_a_plaintext_modulus_without_room_for_noise_is_refused(self):
        given = PackedBFV(degree=2048, coefficient_bits=(54,), plain_bits=50)
        with pytest.raises(ConsiliumError, match=r"too little head room .*plain_bits"):
            given.parameters(100, cohort(10, 8))


class TestCKKS:
    def test_the_mean_is_off_by_no_more_than_its_precision(self):
        vectors = RNG.normal(size=(10, 5000), scale=0.1).astype(np.float32)
        key = key_for(CKKS(), 5000, 10, None)
        numbers, _ = summed(CKKS(), [update(v * np.float32(0.1)) for v in vectors], key)
        np.testing.assert_allclose(numbers, vectors.mean(axis=0), atol=1e-5)
        assert 1e-7 < (numbers - vectors.mean(axis=0, dtype=float)).std() < 1.1e-6

    @pytest.mark.parametrize(("sites", "bits"), [(3, 2), (10, 8), (128, 8), (20, 16)])
    def test_sums_of_quantised_values_are_exact_at_the_largest_quantised_values(self, sites, bits):
        drawn = quantised(sites, 3000, bits)
        key = key_for(CKKS(), 3000, sites, bits)
        numbers, _ = summed(CKKS(), [update(one) for one in drawn], key)
        np.testing.assert_array_equal(numbers, drawn.sum(axis=0))

    def test_a_value_beyond_the_head_room_is_refused_at_its_site(self):
        key = key_for(CKKS(), 10, 10, None)
        with pytest.raises(
            ConsiliumError, match=r"site-7 has a value of 1e\+04.*protection.largest"
        ):
            CKKS().protect(update(np.full(10, 1e3, np.float32), "site-7"), key)

    def test_values_up_to_the_largest_are_summed(self):
        key = key_for(CKKS(), 10, 10, None)
        numbers, _ = summed(CKKS(), [update(np.full(10, 6.4, np.float32))] * 10, key)
        np.testing.assert_allclose(numbers, 64, atol=1e-4)

    def test_one_percent_of_a_large_model_takes_less_than_one_percent_of_its_bytes(self):
        """The bytes up of ``ResNet-18`` 3D, 33 140 802 values, in docs/results/adrenal.md."""
        sent = 331_408
        key = key_for(CKKS(), sent, 10, 8)
        payload = CKKS().protect(update(quantised(1, sent)[0]), key)
        assert payload.body.nbytes < 0.01 * 4 * 33_140_802

    def test_a_sum_longer_than_the_noise_is_made_for_is_not_opened(self):
        key = key_for(CKKS(), 600, 2, None)
        payload = CKKS().protect(update(np.zeros(600, np.float32)), key)
        longer = key.public.parameters.numbers_a_ciphertext + 1
        with pytest.raises(ConsiliumError, match="more than this key's noise is made for"):
            CKKS().reveal(dataclasses.replace(payload, length=longer), key)

    def test_given_parameters_without_room_for_the_noise_are_refused_with_the_remedy(self):
        given = CKKS(degree=2048, coefficient_bits=(54,))
        with pytest.raises(ConsiliumError, match=r"no room for 10 sites.*statistical_security"):
            given.check(cohort(10, None))


@KEYED
class TestRefusals:
    def sent(self, protection, **changes):
        key = key_for(protection, 600, 2)
        payload = protection.protect(update(quantised(1, 600)[0]), key)
        return key, dataclasses.replace(payload, **changes)

    def add(self, protection, key, payload):
        running = protection.open_sum(600, 1, key.public)
        protection.add(running, payload)

    def test_another_round(self, protection):
        with pytest.raises(ConsiliumError, match="its round is 2, expected 1"):
            self.add(protection, *self.sent(protection, round_number=2))

    def test_another_length(self, protection):
        with pytest.raises(ConsiliumError, match="its length is 599, expected 600"):
            self.add(protection, *self.sent(protection, length=599))

    def test_another_key(self, protection):
        _, payload = self.sent(protection)
        other = key_for(protection, 600, 2)
        with pytest.raises(ConsiliumError, match="its context is"):
            self.add(protection, other, payload)

    def test_another_key_when_the_sum_is_opened(self, protection):
        _, payload = self.sent(protection)
        with pytest.raises(ConsiliumError, match="this site has the key"):
            protection.reveal(payload, key_for(protection, 600, 2))

    def test_another_scheme(self, protection):
        with pytest.raises(ConsiliumError, match="its scheme is plain"):
            self.add(protection, *self.sent(protection, scheme="plain"))

    @pytest.mark.parametrize("kept", [0, 3, 100, -1])
    def test_a_truncated_ciphertext(self, protection, kept):
        key, payload = self.sent(protection)
        cut = dataclasses.replace(payload, body=payload.body[:kept])
        with pytest.raises(ConsiliumError, match="payload of site-0 in round 1 is damaged"):
            self.add(protection, key, cut)

    def test_a_ciphertext_of_other_parameters(self, protection):
        key, payload = self.sent(protection)
        other = key_for(protection, 100_000, 2, 8)
        forged = protection.protect(update(quantised(1, 600)[0]), other)
        forged = dataclasses.replace(forged, context=payload.context)
        if other.public.parameters == key.public.parameters:
            pytest.skip("one set of parameters for both lengths")
        with pytest.raises(ConsiliumError, match="is damaged"):
            self.add(protection, key, forged)

    def test_no_payload_at_all(self, protection):
        key = key_for(protection, 10, 2)
        with pytest.raises(ConsiliumError, match="No update arrived"):
            protection.close(protection.open_sum(10, 1, key.public))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"degree": 2048, "coefficient_bits": (55,)}, "less than 128-bit security"),
        ({"degree": 4096, "coefficient_bits": (60, 60)}, "take degree 8192"),
        ({"degree": 3000, "coefficient_bits": (30,)}, "none of 1024"),
        ({"degree": 4096, "coefficient_bits": (61,)}, "at most 60 bits"),
    ],
)
@pytest.mark.parametrize("kind", [CKKS, PackedBFV])
def test_parameters_below_128_bits_are_refused(kind: type[Settings], settings, said):
    with pytest.raises(ValueError, match=said):
        kind(**settings)


def test_the_security_table_is_seals_own():
    seal = pytest.importorskip("tenseal.sealapi")
    for degree, bits in MOST_BITS.items():
        assert seal.CoeffModulus.MaxBitCount(degree, seal.SEC_LEVEL_TYPE.TC128) == bits


def bomb(content, compression):
    """Content as SEAL would have written it."""
    packed = zlib.compress(content)
    if compression == ZSTD:
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        packed = sink.getvalue().to_pybytes()
    header = HEADER.pack(MAGIC, HEADER.size, 4, 1, compression, 0, HEADER.size + len(packed))
    return header + packed


@pytest.mark.parametrize("compression", [ZLIB, ZSTD])
class TestUnpacking:
    def test_what_unpacks_to_more_than_a_ciphertext_is_refused_before_memory_is_taken(
        self, compression
    ):
        raw = bomb(bytes(64 << 20), compression)
        assert len(raw) < 120_000
        tracemalloc.start()
        with pytest.raises(ValueError, match="unpacks to more than 60000 bytes"):
            unpacked(raw, 60_000)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()

    def test_a_damaged_stream_is_refused(self, compression):
        raw = bytearray(bomb(bytes(range(256)) * 40, compression))
        raw[24:40] = b"\xff" * 16
        with pytest.raises(ValueError, match=r"cannot be unpacked|asks for too much|more than"):
            unpacked(bytes(raw), 60_000)

    def test_the_content_is_the_same_without_compression(self, compression):
        content = bytes(range(256)) * 40
        whole = unpacked(bomb(content, compression), len(content))
        assert whole[HEADER.size :] == content
        assert unpacked(whole, len(content)) == whole


def test_a_frame_that_asks_for_a_large_window_is_refused():
    raw = bytearray(bomb(bytes(range(256)) * 4000, ZSTD))
    raw[HEADER.size + 4] &= ~0x20
    raw[HEADER.size + 5] = 20 << 3  # a window of 2^30
    with pytest.raises(ValueError, match="asks for too much memory"):
        unpacked(bytes(raw), 2_000_000)


@KEYED
def test_a_payload_with_a_zip_bomb_for_a_ciphertext_is_refused(protection):
    key = key_for(protection, 600, 2)
    payload = protection.protect(update(quantised(1, 600)[0]), key)
    forged = dataclasses.replace(payload, body=join([bomb(bytes(8 << 20), ZLIB)]))
    with pytest.raises(ConsiliumError, match=r"payload of site-0 in round 1 is damaged.*more than"):
        protection.add(protection.open_sum(600, 1, key.public), forged)


@KEYED
def test_equal_updates_give_different_ciphertexts(protection):
    key = key_for(protection, 600, 2)
    one, other = (protection.protect(update(np.zeros(600, np.int32)), key) for _ in range(2))
    assert (one.body[-500:] != other.body[-500:]).any()
