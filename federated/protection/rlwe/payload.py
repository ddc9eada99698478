"""How a ciphertext and a masked key lie in a payload: residues by prime, and the key, in bits."""

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.protection.rlwe.bits import Body, pack_bits, unpack_bits
from federated.protection.rlwe.encryption import Ciphertext
from federated.protection.rlwe.parameters import RingParameters
from federated.protection.rlwe.round import KeyRound
from federated.protection.secagg.masks import WORDS
from federated.update import Payload

MaskedKey = npt.NDArray[np.unsignedinteger]


def empty_content(
    parameters: RingParameters, round_: KeyRound, length: int
) -> tuple[Ciphertext, MaskedKey]:
    """What a sum of payloads of ``length`` values begins with: zeros."""
    rows = parameters.coefficients(length)
    hidden = tuple(np.zeros(rows, np.uint32) for _ in parameters.primes)
    return hidden, np.zeros(parameters.degree, WORDS[round_.bits])


def join_content(hidden: Ciphertext, key: MaskedKey, parameters: RingParameters) -> Body:
    """A body: the residues modulo each prime, and then the lowest bits of a masked key.

    Of masks modulo 2^16 or more the sum of all keys needs the lowest ``key_bits`` alone.
    """
    parts = [*zip(hidden, parameters.prime_bits, strict=True), (key, parameters.key_bits)]
    return np.concatenate([pack_bits(words, bits) for words, bits in parts])


def split_content(
    payload: Payload, parameters: RingParameters, round_: KeyRound
) -> tuple[Ciphertext, MaskedKey]:
    """The ciphertext and the masked key of a payload.

    Raises:
        ConsiliumError: the body has another size, or what it holds are no residues.
    """
    sizes, rows = parameters.sizes(payload.length), parameters.coefficients(payload.length)
    where = f"The payload of {payload.site} in round {payload.round_number} is damaged: "
    if len(payload.body) != sum(sizes):
        raise ConsiliumError(
            f"{where}it has {len(payload.body)} bytes, not {sum(sizes)}. Resume the run to send it "
            "again."
        )
    *parts, key = np.split(payload.body, np.cumsum(sizes)[:-1])
    bits = parameters.prime_bits
    hidden = tuple(unpack_bits(part, rows, b) for part, b in zip(parts, bits, strict=True))
    limits = zip(hidden, parameters.primes, strict=True)
    if any((residues >= prime).any() for residues, prime in limits):
        raise ConsiliumError(
            f"{where}it holds numbers that are not below the primes of {parameters.describe()}. "
            "Resume the run to send it again."
        )
    words = unpack_bits(key, parameters.degree, parameters.key_bits)
    return hidden, words.astype(WORDS[round_.bits])
