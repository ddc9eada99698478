"""Several quantised values in a slot: what fits, and which parameters are taken."""

from functools import cache
from itertools import product

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection import Cohort, PackedBFV
from federated.protection.packed_bfv import (
    CANDIDATES,
    SCHEME,
    largest_plain,
    smallest_plain_bits,
)
from federated.protection.packing import pack, unpack
from federated.protection.parameters import Parameters
from federated.protection.seal import plain_modulus

RINGS = [(1024, (27,)), (2048, (54,)), (4096, (60,)), (4096, (54, 54))]


@cache
def modulus(degree, bits):
    """The prime of so many bits with slots; 0 where there is none."""
    try:
        return plain_modulus(degree, bits).value()
    except (RuntimeError, ValueError):
        return 0


def test_quantised_values_are_digits_the_first_one_the_lowest_and_the_last_slot_is_filled_up():
    packed = pack(np.array([1, 2, -3, 4, -5]), 11, 2)
    assert packed.tolist() == [1 + 2 * 11, -3 + 4 * 11, -5]
    assert unpack(packed, 11, 2).tolist() == [1, 2, -3, 4, -5, 0]


def test_no_digit_carries_however_large_its_neighbours_are():
    values = np.array(list(product(range(-2, 3), repeat=3)))
    packed = pack(values.reshape(-1), 5, 3)
    assert len(packed) == len(set(packed.tolist())) == 5**3
    np.testing.assert_array_equal(unpack(packed, 5, 3), values.reshape(-1))


@pytest.mark.parametrize("degree", [1024, 4096])
@pytest.mark.parametrize("beyond", [0, 1])
def test_the_plaintext_modulus_is_the_smallest_that_has_the_room(degree, beyond):
    for bits in (16, 20, 40, 59):
        capacity = modulus(degree, bits) + beyond
        found = smallest_plain_bits(degree, capacity)
        assert modulus(degree, found) >= capacity
        assert all(modulus(degree, fewer) < capacity for fewer in range(14, found))


def test_the_fewest_bits_of_a_modulus_are_fourteen_or_what_slots_need():
    assert smallest_plain_bits(1024, 2) == 14
    assert smallest_plain_bits(8192, 2) == smallest_plain_bits(32_768, 2) == 17
    assert smallest_plain_bits(1024, modulus(1024, 60)) == 60
    assert smallest_plain_bits(1024, modulus(1024, 60) + 1) is None
    assert smallest_plain_bits(1024, 2**60) is None
    assert largest_plain(1024, 11) == largest_plain(1024, 61) == 0


def test_the_rings_that_are_tried_are_those_of_128_bits_of_security():
    assert list(CANDIDATES) == RINGS


@pytest.mark.parametrize(("sites", "bits"), [(2, 2), (10, 8), (100, 8), (3, 16)])
@pytest.mark.parametrize("length", [10, 3000, 100_000])
def test_no_other_parameters_with_room_for_the_sum_take_fewer_bytes(sites, bits, length):
    base = 2 * sites * (2 ** (bits - 1) - 1) + 1
    possible = [
        parameters
        for degree, primes in RINGS
        for digits in range(1, 60)
        for plain_bits in range(14, 61)
        if modulus(degree, plain_bits) >= base**digits
        for parameters in [Parameters(SCHEME, degree, primes, plain_bits, base, digits)]
        if parameters.bits_for_sum(sites) <= parameters.modulus_bits
    ]
    found = PackedBFV().parameters(length, Cohort(sites, sites, 20, bits))
    assert found in possible
    assert found.bytes_for(length) == min(p.bytes_for(length) for p in possible)


def test_with_a_plaintext_modulus_given_a_slot_has_as_many_quantised_values_as_fit():
    for plain_bits, digits in ((16, 1), (22, 1), (24, 2), (36, 3)):
        given = PackedBFV(degree=4096, coefficient_bits=(54, 54), plain_bits=plain_bits)
        found = given.parameters(10**6, Cohort(10, 10, 20, 8))
        assert (found.plain_bits, found.base) == (plain_bits, 2541)
        assert found.digits == digits
        assert modulus(4096, plain_bits) >= found.base**digits


@pytest.mark.parametrize("sites", [3, 10])
def test_without_a_ring_given_one_is_taken_that_has_room_for_the_plaintext_modulus(sites):
    """The smallest ring has none for 20 bits."""
    found = PackedBFV(plain_bits=20).parameters(1000, Cohort(sites, sites, 20, 8))
    assert found.plain_bits == 20
    assert found.bits_for_sum(sites) <= found.modulus_bits


@pytest.mark.parametrize("plain_bits", [14, 15])
def test_rings_without_a_prime_of_the_size_that_is_given_are_left_out(plain_bits):
    given = PackedBFV(plain_bits=plain_bits)
    assert given.parameters(1000, Cohort(3, 3, 20, 8)).plain_bits == plain_bits
    with pytest.raises(ConsiliumError, match=f"plain_bits={plain_bits} leave less"):
        given.parameters(1000, Cohort(1000, 1000, 20, 16))


def test_a_base_as_large_as_the_plaintext_modulus_still_has_its_digit():
    given = PackedBFV(degree=4096, coefficient_bits=(54, 54), plain_bits=16)
    found = given.parameters(10, Cohort(20_480, 20_480, 20, 2))
    assert found.base == modulus(4096, 16) == 40_961
    assert found.digits == 1


def test_a_ring_is_given_wholly_or_not_at_all():
    with pytest.raises(ValueError, match="set together or not at all"):
        PackedBFV(degree=4096)
    with pytest.raises(ValueError, match="set together or not at all"):
        PackedBFV(coefficient_bits=(60,))


def test_what_was_given_is_named_where_it_leaves_no_room():
    cohort = Cohort(5000, 5000, 20, 8)
    with pytest.raises(ConsiliumError, match=r"plaintext, and plain_bits=16 leave less\."):
        PackedBFV(plain_bits=16).parameters(10, cohort)
    with pytest.raises(ConsiliumError, match=r"needs \d+\.\d bits of plaintext\. Lower"):
        PackedBFV().parameters(10, Cohort(2**40, 2**40, 20, 24))


@pytest.mark.parametrize("plain_bits", [13, 61])
def test_a_plaintext_modulus_that_seal_has_not_is_refused(plain_bits):
    with pytest.raises(ValueError, match="plain_bits"):
        PackedBFV(plain_bits=plain_bits)
    assert PackedBFV(plain_bits=min(60, max(14, plain_bits))).plain_bits in (14, 60)
