"""Whose tags are wrong is told by a proof that needs no key of the tags."""

from dataclasses import replace

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection.tag_proofs import (
    PAD_PIECES,
    ROWS,
    Proof,
    Tags,
    commitment,
    fits,
    new_challenge,
    pads_of,
    prove,
)
from federated.protection.tags import TAGS, WEIGHT_BITS, TagKey, Words, tags_of, weight_stream

KEY = TagKey.of(b"secret", "run|1|1")
PRIMES = (1152921504606830593, 134176769)  # of 60 and of 27 bits
DEGREE = 64
SITES = ("site-0", "site-1", "site-2")
CHALLENGE = bytes(range(32))

Residues = list[tuple[int, Words]]


def payload(seed: int) -> Residues:
    """Two ciphertexts of two polynomials, each modulo both primes."""
    rng = np.random.default_rng(seed)
    return [(p, rng.integers(0, p, DEGREE).astype(np.uint64)) for _ in range(4) for p in PRIMES]


PAYLOADS = {site: payload(number) for number, site in enumerate(SITES)}
PARTS = [(prime, len(words)) for prime, words in PAYLOADS["site-0"]]


def rows_of(residues: Residues, key: TagKey = KEY) -> Tags:
    return (*tags_of(residues, key), *pads_of(residues, key))


def proven(told: dict[str, Tags], challenge: bytes = CHALLENGE) -> Proof:
    return prove(PARTS, told, KEY, challenge)


def guilty(proof: Proof) -> list[str]:
    return [site for site in SITES if not fits(proof, site, PAYLOADS[site])]


def test_pads_hide_weights_and_challenges_cannot_be_guessed() -> None:
    """Of a prime of 60 bits a pad has 30 bits more, so that it is as good as uniform modulo it."""
    assert 2**30 * max(PRIMES) <= 2 ** (WEIGHT_BITS * PAD_PIECES)
    assert len(new_challenge()) == 32
    assert len({new_challenge() for _ in range(100)}) == 100
    assert len(rows_of(PAYLOADS["site-0"])) == ROWS


def test_of_honest_sites_nobody_is_named() -> None:
    assert guilty(proven({site: rows_of(PAYLOADS[site]) for site in SITES})) == []


@pytest.mark.parametrize("row", range(ROWS))
@pytest.mark.parametrize("place", range(len(PRIMES)))
def test_a_site_whose_tags_are_off_by_one_is_named_and_no_other(row: int, place: int) -> None:
    told = {site: rows_of(PAYLOADS[site]) for site in SITES}
    rows = [list(numbers) for numbers in told["site-1"]]
    rows[row][place] = (rows[row][place] + 1) % PRIMES[place]
    told["site-1"] = tuple(map(tuple, rows))
    assert guilty(proven(told)) == ["site-1"]


def test_a_site_that_has_sent_another_payload_than_it_has_tagged_is_named() -> None:
    told = {site: rows_of(PAYLOADS[site]) for site in SITES}
    told["site-2"] = rows_of(payload(9))
    assert guilty(proven(told)) == ["site-2"]


def test_a_site_whose_tags_cannot_be_read_is_named() -> None:
    told = {site: rows_of(PAYLOADS[site]) for site in SITES[1:]}
    assert guilty(proven(told)) == ["site-0"]


def test_errors_that_cancel_for_a_guessed_challenge_are_found_with_another() -> None:
    """A site that knew the challenge before could send t + d and u − d/e."""
    guessed, told = new_challenge(), {site: rows_of(PAYLOADS[site]) for site in SITES}
    from federated.protection.tag_proofs import _factor

    rows = [list(numbers) for numbers in told["site-1"]]
    for n in range(TAGS):
        for place, prime in enumerate(PRIMES):
            inverse = pow(_factor(guessed, prime), -1, prime)
            rows[n][place] = (rows[n][place] + 5) % prime
            rows[TAGS + n][place] = (rows[TAGS + n][place] - 5 * inverse) % prime
    told["site-1"] = tuple(map(tuple, rows))
    assert guilty(proven(told, guessed)) == []  # the attack works where the challenge is known
    assert guilty(proven(told)) == ["site-1"]


def test_the_weights_of_a_proof_are_the_sum_that_the_docstring_says_in_whole_numbers() -> None:
    from federated.protection.tag_proofs import _factor

    found = proven({}).weights[1]
    weights = weight_stream(KEY, "weights 1")
    pieces = [weight_stream(KEY, f"pads 1 {j}") for j in range(PAD_PIECES)]
    start = 0
    for prime, count in PARTS:
        r, s = weights(count), [piece(count) for piece in pieces]
        for i in range(count):
            pad = sum(int(piece[i]) << (WEIGHT_BITS * j) for j, piece in enumerate(s))
            expected = (int(r[i]) + _factor(CHALLENGE, prime) * pad) % prime
            assert int(found[start + i]) == expected
        start += count


def test_two_challenges_would_give_the_weights_away() -> None:
    """Why a site answers one alone, that of its plan: from two, r follows by subtraction."""
    from federated.protection.tag_proofs import _factor

    first, second = bytes(32), bytes([1]) * 32
    prime = PRIMES[0]
    w = [int(proven({}, each).weights[0][0]) for each in (first, second)]
    e = [_factor(each, prime) for each in (first, second)]
    pad = (w[0] - w[1]) * pow(e[0] - e[1], -1, prime) % prime
    assert (w[0] - e[0] * pad) % prime == int(weight_stream(KEY, "weights 0")(1)[0])
    assert commitment(first) != commitment(second)


def test_no_challenge_that_a_coordinator_could_search_for_tells_the_weights_themselves() -> None:
    """For e = 0 modulo a prime the proof would be the weights, with which any sum is made up."""
    from federated.protection.tag_proofs import _factor

    challenges = [number.to_bytes(32, "little") for number in range(200)]
    for prime in (3, 5, 7, 134176769):
        assert all(1 <= _factor(each, prime) < prime for each in challenges)


def test_a_proof_travels_and_what_is_none_is_refused() -> None:
    proof = proven({site: rows_of(PAYLOADS[site]) for site in SITES[1:]})
    body = proof.to_bytes(SITES)
    words = sum(count for _, count in PARTS)
    again = Proof.from_bytes(body, SITES, len(PRIMES), words)
    assert again.to_bytes(SITES) == body
    assert guilty(again) == ["site-0"]
    for content, sites, size in (
        (b"noise", SITES, words), (body, SITES[:2], words), (body, SITES, words + 1),
        (replace(proof, weights=proof.weights[:1]).to_bytes(SITES), SITES, words),
    ):  # fmt: skip
        with pytest.raises(ConsiliumError, match="proof of tags is refused"):
            Proof.from_bytes(content, sites, len(PRIMES), size)


def test_a_proof_with_weights_beyond_any_prime_fits_nobody_and_overflows_nothing() -> None:
    told = {site: rows_of(PAYLOADS[site]) for site in SITES}
    proof = proven(told)
    largest = tuple(np.full_like(w, np.iinfo(np.uint64).max) for w in proof.weights)
    with np.errstate(over="raise"):
        assert guilty(replace(proof, weights=largest)) == list(SITES)
