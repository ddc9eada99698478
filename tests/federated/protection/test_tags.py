"""Tags of ciphertexts: that of a sum is the sum of the tags, and nothing else has it."""

from dataclasses import replace

import numpy as np
import pytest

from federated.errors import RefusalError
from federated.protection import CKKS, PackedBFV
from federated.protection.base import Cohort
from federated.protection.homomorphic import data_primes, residues
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.seal import join, seal_context, split
from federated.protection.tags import (
    PIECE_BITS,
    PIECES,
    TERMS,
    WEIGHT_BITS,
    TagKey,
    add_tags,
    inner_product,
    open_tags,
    refuse_other_sum,
    seal_tags,
    sealed_size,
    tags_of,
    weight_stream,
)
from federated.update import CompressedUpdate, Payload

KEY = TagKey.of(b"secret", "run|1|1")
LENGTH = 25_000
SITES = 3


class Encrypted:
    """Payloads of three sites under one key, and their sum."""

    def __init__(self, protection) -> None:
        import tenseal.sealapi as seal

        self.protection = protection
        self.parameters = protection.parameters(LENGTH, Cohort(SITES, SITES, 5, 8))
        secret = seal.KeyGenerator(seal_context(self.parameters)).secret_key()
        self.key = SecretContext(PublicContext(self.parameters, "id"), secret)
        rng = np.random.default_rng(0)
        self.payloads = [
            protection.protect(
                CompressedUpdate(
                    f"site-{k}", 1, 3, 1 / 3, LENGTH,
                    rng.integers(-100, 100, LENGTH).astype(np.int32),
                ),
                self.key,
            )
            for k in range(SITES)
        ]  # fmt: skip

    def sum(self, *chosen: int) -> Payload:
        running = self.protection.open_sum(LENGTH, 1, self.key.public)
        for k in chosen:
            self.protection.add(running, self.payloads[k])
        return self.protection.close(running)

    def tags(self, payload: Payload, key: TagKey = KEY):
        return tags_of(residues(payload, self.parameters), key)

    def refuse(self, total: Payload, *chosen: int) -> None:
        several = [self.tags(self.payloads[k]) for k in chosen]
        refuse_other_sum(self.tags(total), several, data_primes(self.parameters), "site-0")


@pytest.fixture(scope="module", params=[PackedBFV, CKKS], ids=["packed_bfv", "ckks"])
def encrypted(request: pytest.FixtureRequest) -> Encrypted:
    return Encrypted(request.param())


def test_the_tags_of_a_sum_are_the_sum_of_the_tags(encrypted: Encrypted) -> None:
    encrypted.refuse(encrypted.sum(0, 1, 2), 0, 1, 2)
    encrypted.refuse(encrypted.sum(2, 1), 1, 2)


def test_one_payload_in_place_of_the_sum_is_refused(encrypted: Encrypted) -> None:
    with pytest.raises(RefusalError, match="not the sum of the payloads"):
        encrypted.refuse(encrypted.payloads[1], 0, 1, 2)


@pytest.mark.parametrize("chosen", [(0, 1), (0, 1, 1), (0, 0, 1, 2), (1, 1, 1)])
def test_a_sum_of_others_than_it_is_said_to_be_of_is_refused(encrypted, chosen) -> None:
    with pytest.raises(RefusalError, match="not the sum of the payloads"):
        encrypted.refuse(encrypted.sum(*chosen), 0, 1, 2)


def test_ciphertexts_in_another_order_are_refused(encrypted: Encrypted) -> None:
    total = encrypted.sum(0, 1, 2)
    parts = split(total.body, encrypted.parameters.ciphertexts(LENGTH))
    assert len(parts) > 1
    with pytest.raises(RefusalError, match="not the sum of the payloads"):
        encrypted.refuse(replace(total, body=join(parts[::-1])), 0, 1, 2)


def test_one_number_that_differs_by_one_is_refused(encrypted: Encrypted) -> None:
    total = encrypted.sum(0, 1, 2)
    parts = list(residues(total, encrypted.parameters))
    prime, words = parts[-1]
    words = words.copy()
    words[17] = (int(words[17]) + 1) % prime
    changed = tags_of([*parts[:-1], (prime, words)], KEY)
    several = [encrypted.tags(payload) for payload in encrypted.payloads]
    with pytest.raises(RefusalError, match="not the sum of the payloads"):
        refuse_other_sum(changed, several, data_primes(encrypted.parameters), "site-0")


def test_another_round_has_other_tags(encrypted: Encrypted) -> None:
    again = TagKey.of(b"secret", "run|1|2")
    payload = encrypted.payloads[0]
    assert encrypted.tags(payload) != encrypted.tags(payload, again)


def test_sums_are_exact_with_the_largest_numbers() -> None:
    """Compared with Python's integers."""
    rng = np.random.default_rng(0)
    for largest in (1, 2**61 - 1):
        words = rng.integers(0, largest, 3 * TERMS + 5, endpoint=True, dtype=np.uint64)
        words[:TERMS] = largest
        weights = np.full(len(words), 2**WEIGHT_BITS - 1, np.uint64)
        expected = sum(int(a) * int(b) for a, b in zip(weights, words, strict=True))
        assert inner_product(weights, words) == expected
    assert WEIGHT_BITS + PIECE_BITS + TERMS.bit_length() <= 64
    assert PIECE_BITS * PIECES >= 64


def test_weights_have_thirty_bits_of_which_each_is_drawn() -> None:
    """With fewer, what a coordinator makes up would pass more often than the docstring says."""
    drawn = weight_stream(KEY, "weights 0")(50_000)
    assert drawn.max() < 2**WEIGHT_BITS
    ones = [int((drawn >> np.uint64(bit) & np.uint64(1)).sum()) for bit in range(WEIGHT_BITS)]
    # Within nine standard deviations of half, and together almost never the same twice.
    assert all(abs(count - 25_000) < 1000 for count in ones)
    assert len(np.unique(drawn)) > 49_990


def test_tags_are_told_to_the_sites_alone() -> None:
    tags = ((2**64 - 1, 7), (11, 13))
    sealed = seal_tags(tags, "site-0", KEY)
    assert len(sealed) == sealed_size(2, 2)
    assert len(seal_tags(((1, 2, 3),) * 4, "site-0", KEY)) == sealed_size(3, 4)
    assert open_tags(sealed, "site-0", 2, KEY) == tags
    assert seal_tags(tags, "site-0", KEY) != sealed
    for site, key in (("site-1", KEY), ("site-0", TagKey.of(b"secret", "run|1|2")),
                      ("site-0", TagKey.of(b"other", "run|1|1"))):  # fmt: skip
        with pytest.raises(RefusalError, match="not of this round"):
            open_tags(sealed, site, 2, key)
    with pytest.raises(RefusalError, match="too few"):
        open_tags(sealed, "site-0", 3, KEY)
    for content in (b"", sealed[:5], sealed[:-1], bytes(len(sealed))):
        with pytest.raises(RefusalError):
            open_tags(content, "site-0", 2, KEY)


def test_tags_add_modulo_each_prime() -> None:
    assert add_tags([((6, 8), (1, 2)), ((3, 5), (9, 9))], [7, 11]) == ((2, 2), (3, 0))
