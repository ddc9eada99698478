"""Products of polynomials against a schoolbook one in Python's integers, and bits without gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.protection.rlwe.bits import CHUNK, pack_bits, packed_size, unpack_bits
from federated.protection.rlwe.encryption import public_polynomial
from federated.protection.rlwe.parameters import ring_primes
from federated.protection.rlwe.ring import transform

RNG = np.random.default_rng(0)
# All sizes of primes that are used, and small ones whose every residue is seen.
RINGS = [(4, 17), (8, 97), (64, 257), (1024, ring_primes(1024, (22,))[0])]
RINGS += [(2048, prime) for prime in ring_primes(2048, (28, 28))]
RINGS += [(4096, prime) for prime in ring_primes(4096, (31, 31))]


def schoolbook(one, other, prime):
    """The product modulo X^N + 1, term by term."""
    degree, product = len(one), [0] * len(one)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            sign = -1 if i + j >= degree else 1
            product[(i + j) % degree] += sign * a * b
    return [value % prime for value in product]


def product(one, other, ring):
    values = ring.times(ring.forward(one), ring.forward(other))
    return ring.backward(values)


@pytest.mark.parametrize(("degree", "prime"), RINGS[:3])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_product_is_that_of_the_schoolbook(degree, prime, data):
    ring = transform(degree, prime)
    coefficients = st.lists(st.integers(0, prime - 1), min_size=degree, max_size=degree)
    one, other = data.draw(coefficients), data.draw(coefficients)
    found = product(*(np.array([each], np.uint64) for each in (one, other)), ring)
    assert found[0].tolist() == schoolbook(one, other, prime)


@pytest.mark.parametrize(("degree", "prime"), RINGS[3:])
def test_a_product_in_a_ring_that_is_used_is_exact_at_the_largest_residues(degree, prime):
    """At some places, since a schoolbook takes seconds for all: each a sum of N products."""
    ring = transform(degree, prime)
    one = np.full((2, degree), prime - 1, np.uint64)
    one[1] = RNG.integers(0, prime, degree)
    other = np.full((1, degree), prime - 1, np.uint64)
    found = product(one, other, ring)
    for row in range(2):
        a = [int(value) for value in one[row]]
        for place in (0, 1, degree // 2, degree - 1):
            wanted = sum(a[i] * (prime - 1) for i in range(place + 1))
            wanted -= sum(a[i] * (prime - 1) for i in range(place + 1, degree))
            assert int(found[row, place]) == wanted % prime


@pytest.mark.parametrize(("degree", "prime"), RINGS)
def test_going_forward_and_back_changes_nothing(degree, prime):
    ring = transform(degree, prime)
    some = RNG.integers(0, prime, (3, degree)).astype(np.uint64)
    before = some.copy()
    np.testing.assert_array_equal(ring.backward(ring.forward(some)), some)
    np.testing.assert_array_equal(some, before)


@pytest.mark.parametrize(("degree", "prime"), RINGS)
def test_residues_are_of_either_sign_and_sums_and_differences_stay_below_the_prime(degree, prime):
    ring = transform(degree, prime)
    ends = np.array([0, 1, prime - 2, prime - 1], np.uint64)
    for a in ends:
        for b in ends:
            assert int(ring.plus(a[None], b[None])[0]) == (int(a) + int(b)) % prime
            assert int(ring.minus(a[None], b[None])[0]) == (int(a) - int(b)) % prime
            assert int(ring.times(a[None], b[None])[0]) == int(a) * int(b) % prime
    integers = [-(2**62), -prime - 1, -prime, -1, 0, prime, 2**62]
    assert ring.residues(np.array(integers)).tolist() == [value % prime for value in integers]


@pytest.mark.parametrize(
    ("degree", "prime"), [(6, 37), (8, 41), (8, 2**32 + 17), (4, 2**31 * 8 + 1)]
)
def test_a_ring_without_a_transform_is_refused(degree, prime):
    with pytest.raises(ValueError, match="no transform"):
        transform(degree, prime)


def test_primes_are_the_largest_of_so_many_bits_and_none_where_there_are_too_few():
    for degree, bits in ((1024, (27,)), (2048, (28, 28)), (4096, (31, 31))):
        primes = ring_primes(degree, bits)
        assert len(set(primes)) == len(bits)
        assert [prime.bit_length() for prime in primes] == list(bits)
        assert all(prime % (2 * degree) == 1 for prime in primes)
    assert ring_primes(4096, (14, 14)) == ()


@pytest.mark.parametrize("bits", [1, 7, 8, 11, 22, 31, 32])
@pytest.mark.parametrize("count", [0, 1, 5, 64, CHUNK + 3])
def test_words_lie_without_a_gap_and_come_back(bits, count):
    words = RNG.integers(0, 2**bits, count).astype(np.uint32)
    body = pack_bits(words, bits)
    assert len(body) == packed_size(count, bits) == -(-count * bits // 8)
    np.testing.assert_array_equal(unpack_bits(body, count, bits), words)
    as_one = int.from_bytes(body.tobytes(), "big") >> (8 * len(body) - count * bits)
    first = [
        as_one >> (bits * (count - 1 - place)) & (2**bits - 1) for place in range(min(5, count))
    ]
    assert first == words[:5].tolist()


def test_only_the_lowest_bits_of_a_word_are_packed():
    words = np.array([0xFFFF, 0x0800, 0x07FF], np.uint16)
    np.testing.assert_array_equal(unpack_bits(pack_bits(words, 11), 3, 11), [0x7FF, 0, 0x7FF])


@pytest.mark.parametrize("change", [-1, 1])
def test_a_body_of_another_size_is_refused(change):
    body = pack_bits(np.arange(9, dtype=np.uint32), 5)
    with pytest.raises(ValueError, match="bytes are not 9 integers of 5 bits"):
        unpack_bits(np.resize(body, len(body) + change), 9, 5)


def test_public_polynomials_follow_from_their_label_and_are_uniform_below_the_prime():
    ring = transform(1024, ring_primes(1024, (22,))[0])
    found = [public_polynomial("a round", number, ring) for number in range(40)]
    np.testing.assert_array_equal(found[3], public_polynomial("a round", 3, ring))
    assert (found[3] != public_polynomial("another round", 3, ring)).mean() > 0.99
    assert len({one.tobytes() for one in found}) == 40
    assert (np.ptp(found, axis=0) > 0).all()  # no place has the same value in all of them
    values = np.concatenate(found).astype(float) / ring.prime
    assert values.max() < 1
    # The mean of 40960 uniform numbers, within five standard deviations; and each sixteenth.
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values))
    counts = np.bincount((16 * values).astype(int), minlength=16)
    assert (np.abs(counts - 2560) < 5 * np.sqrt(2400)).all()


def test_public_polynomials_never_reach_the_prime_where_half_of_all_words_do():
    ring = transform(4, 17)  # words of five bits
    values = np.concatenate([public_polynomial("a round", n, ring) for n in range(500)])
    assert set(values.tolist()) == set(range(17))
