"""Parameters of short keys: security after the leak, and room for every sum."""

from fractions import Fraction
from math import exp, log2, pi, prod, sqrt

import numpy as np
import pytest
from scipy.stats import norm

from federated.protection import wide_gaussian
from federated.protection.rlwe import encryption
from federated.protection.rlwe.encryption import (
    _lift,
    add_ciphertexts,
    decrypt_sum,
    draw_gaussian,
    encrypt,
)
from federated.protection.rlwe.parameters import (
    BOUND,
    MOST_BITS,
    SIGMA,
    RingParameters,
    fit_parameters,
    ring_primes,
)
from federated.protection.wide_gaussian import fresh_source

# The standard's error, and its table for secrets as wide as errors at 128 bits.
STANDARD, TABLE = 3.2, {1024: 29, 2048: 56, 4096: 111}


def base(sites, bits):
    return 2 * sites * (2 ** (bits - 1) - 1) + 1


CASES = [(3, 2), (3, 8), (10, 8), (10, 7), (100, 8), (20, 16), (1000, 16)]


@pytest.mark.parametrize(("sites", "bits"), CASES)
@pytest.mark.parametrize("length", [1, 3000, 200_000])
def test_what_is_taken_is_secure_and_exact_and_no_other_takes_fewer_bytes(sites, bits, length):
    found = fit_parameters(length, sites, base(sites, bits))
    assert log2(found.modulus) <= MOST_BITS[found.degree] <= TABLE[found.degree]
    # Rounding is right where an error is below half of what a packed value is multiplied by.
    assert found.modulus // base(sites, bits) ** found.digits > 2 * sites * BOUND
    assert 2 ** (found.key_bits - 1) > sites * BOUND >= 2 ** (found.key_bits - 2)
    possible = [
        RingParameters(degree, parts, base(sites, bits), digits, sites)
        for degree, most in MOST_BITS.items()
        for total in range(16, most + 1)
        for parts in ([(total,)] if total <= 31 else [(total // 2, total - total // 2)])
        if (primes := ring_primes(degree, parts))
        for digits in range(1, 60)
        if prod(primes) > base(sites, bits) ** digits
    ]
    sizes = {p: sum(p.sizes(length)) for p in possible if p.exact}
    assert sum(found.sizes(length)) == min(sizes.values())


@pytest.mark.parametrize(
    ("degree", "prime_bits"),
    [(1024, (22,)), (1024, (29,)), (2048, (31,)), (2048, (28, 28)), (4096, (31, 31))],
)
def test_a_modulus_is_as_short_as_exact_sums_allow_and_no_shorter(degree, prime_bits):
    """One value a coefficient, in the largest base for which Δ is 2KB + 1, and one of 2KB."""
    twice, modulus = 2 * 3 * BOUND, prod(ring_primes(degree, prime_bits))
    largest = modulus // (twice + 1)
    found = fit_parameters(1, 3, largest, degree)
    assert (found.prime_bits, found.digits, found.scale) == (prime_bits, 1, twice + 1)
    above = modulus // twice
    short = RingParameters(degree, prime_bits, above, 1, 3)
    assert (short.scale, short.exact) == (twice, False)
    longer = fit_parameters(1, 3, above, degree)
    # With as many bits as are secure there is no longer one.
    assert (longer is None) == (sum(prime_bits) == min(TABLE[degree], 62))
    assert longer is None or sum(longer.prime_bits) > sum(prime_bits)


def test_beside_sums_keys_and_errors_are_as_wide_as_the_standards():
    assert SIGMA / 2 == STANDARD
    assert log2(2 * norm.sf((BOUND + 0.5) / SIGMA)) < -125


def masses(sigma, centre, support):
    found = np.array([exp(-((x - float(centre)) ** 2) / (2 * sigma**2)) for x in support])
    return found / found.sum()


@pytest.mark.parametrize("total", [-3, 0, 1, 8, 25])
def test_beside_their_sum_one_of_two_keys_is_a_gaussian_of_a_smaller_width(total):
    """Step 2 of the argument: the width is that over √2, and the centre half the sum."""
    support = np.arange(-BOUND, BOUND + 1)
    own = masses(SIGMA, 0, support)
    other = masses(SIGMA, 0, total - support)
    beside = own * other / (own * other).sum()
    np.testing.assert_allclose(
        beside, masses(SIGMA / sqrt(2), Fraction(total, 2), support), atol=1e-15
    )


@pytest.mark.parametrize("total", [-3, 0, 1, 8, 25])
def test_that_gaussian_is_one_of_the_standards_width_and_another_one(total):
    """Step 3 of the argument; the bound of 2^-143 is below what doubles tell."""
    near, far = np.arange(-60, 61), np.arange(-120, 121)
    first = masses(STANDARD, 0, near)
    second = masses(STANDARD, Fraction(total, 2), near + total // 2)
    both = np.convolve(first, second)
    wanted = masses(SIGMA / sqrt(2), Fraction(total, 2), far + total // 2)
    np.testing.assert_allclose(both, wanted, atol=1e-15)
    assert 4 * exp(-2 * pi**2 * SIGMA**2 / 8) < 2.0**-143


def test_errors_are_a_discrete_gaussian_within_their_bound():
    drawn = draw_gaussian(200_000, fresh_source())
    assert np.abs(drawn).max() <= BOUND
    assert drawn.std() == pytest.approx(SIGMA, rel=0.02)
    assert abs(drawn.mean()) < 5 * SIGMA / sqrt(len(drawn))
    end, high, _ = wide_gaussian._table(SIGMA, BOUND)
    cumulated = np.cumsum(masses(SIGMA, 0, range(-BOUND, BOUND + 1)))
    np.testing.assert_allclose(high / 2.0**64, cumulated[:-1], atol=1e-14)
    assert end == BOUND


@pytest.mark.parametrize(("degree", "prime_bits"), [(1024, (22,)), (4096, (31, 31))])
def test_residues_are_lifted_to_integers_of_either_sign_up_to_half_the_modulus(degree, prime_bits):
    parameters = RingParameters(degree, prime_bits, 255, 1, 3)
    half = parameters.modulus // 2
    integers = np.array([-half, 1 - half, -1, 0, 1, half - 1, half])
    residues = [ring.residues(integers) for ring in parameters.transforms]
    np.testing.assert_array_equal(_lift(residues, parameters), integers)


@pytest.mark.parametrize("degree", [1024, 2048, 4096])
def test_every_coefficient_that_is_sent_has_an_error_of_its_own(monkeypatch, degree):
    """What is encrypted with errors less what is encrypted without, under one key."""
    parameters = fit_parameters(90_000, 10, base(10, 8), degree)
    values = np.arange(90_000) % 255 - 127
    secret = fresh_source()(32)
    hidden, key = encrypt(values, secret, "a round", parameters)
    draws = iter([key])
    monkeypatch.setattr(
        encryption, "draw_gaussian", lambda count, source: next(draws, np.zeros(count, np.int64))
    )
    bare, _ = encrypt(values, secret, "a round", parameters)
    errors = [
        (with_.astype(np.int64) - without.astype(np.int64) + prime // 2) % prime - prime // 2
        for with_, without, prime in zip(hidden, bare, parameters.primes, strict=True)
    ]
    assert all((each == errors[0]).all() for each in errors)
    count = parameters.coefficients(90_000)
    assert np.abs(errors[0]).max() <= BOUND
    assert errors[0].std() == pytest.approx(SIGMA, abs=5 * SIGMA / sqrt(2 * count))
    # Nothing of a polynomial's errors is in the next one's, nor of the key's.
    for other in (errors[0][degree : 2 * degree], key):
        assert abs(np.corrcoef(errors[0][:degree], other)[0, 1]) < 5 / sqrt(degree)


def test_random_bits_that_are_all_zeros_or_ones_give_the_bounds_and_no_more():
    assert draw_gaussian(1, lambda count: bytes(count))[0] == -BOUND
    assert draw_gaussian(1, lambda count: b"\xff" * count)[0] == BOUND


@pytest.mark.parametrize(("sites", "bits"), CASES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_sum_is_exact_at_the_largest_values_and_the_largest_errors(
    monkeypatch, sites, bits, sign
):
    parameters = fit_parameters(500, sites, base(sites, bits))
    monkeypatch.setattr(
        encryption, "draw_gaussian", lambda count, source: np.full(count, sign * BOUND)
    )
    largest = 2 ** (bits - 1) - 1
    values = np.where(np.arange(500) % 3, largest, -largest)
    hidden, key = encrypt(values, bytes(32), "a round", parameters)
    total = tuple(residues.copy() for residues in hidden)
    for _ in range(sites - 1):
        add_ciphertexts(total, hidden, parameters)
    found = decrypt_sum(total, sites * key, 500, "a round", parameters)
    np.testing.assert_array_equal(found, sites * values)


def test_one_more_error_than_there_is_room_for_is_refused(monkeypatch):
    """Room is left by chance, since a modulus has whole bits: most wrong keys are noticed."""
    parameters = fit_parameters(500, 3, base(3, 8))
    hidden, key = encrypt(np.zeros(500, int), bytes(32), "a round", parameters)
    assert parameters.scale > 2.2 * parameters.largest_error
    key[0] += 1
    with pytest.raises(ValueError, match="errors are larger"):
        decrypt_sum(hidden, key, 500, "a round", parameters)


def test_a_given_degree_is_kept_and_none_fits_where_there_is_no_room():
    for degree in MOST_BITS:
        assert fit_parameters(3000, 10, base(10, 8), degree).degree == degree
    assert fit_parameters(3000, 100, base(100, 16), 1024) is None
