"""Encryption under a key of each site's own, whose sum alone is told: no site can open another's.

This module has the settings of ``protection.name=rlwe_secagg`` and what happens to numbers;
``rlwe/`` has the scheme with its security, ``secagg/`` the protocol that sums the keys. What is
masked is a site's short key: N integers, as many for a large model as for a small one.

Guarantee: as that of SecAgg+ (``secagg/protocol.py``), under the ring-LWE assumption besides. The
coordinator learns the sum of the updates and, which says nothing more of them, the sums of keys and
of errors (``rlwe/parameters.py``). Sites draw key and errors as they should.
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from federated.compression.quantize import largest_quantised
from federated.protection.base import Cohort, Onlooker, Sum, closed
from federated.protection.plain import encode_numbers
from federated.protection.rlwe.encryption import add_ciphertexts, decrypt_sum, encrypt
from federated.protection.rlwe.parameters import BOUND, SIGMA
from federated.protection.rlwe.payload import (
    MaskedKey,
    empty_content,
    join_content,
    split_content,
)
from federated.protection.rlwe.round import KeyRound
from federated.protection.secagg.protocol import mask_update
from federated.protection.secagg.recovery import SumLostError
from federated.protection.secagg.round import Round
from federated.protection.secagg_plus import MaskedSums, Masking
from federated.secrets.key_derivation import derive_key
from federated.update import CompressedUpdate, Payload


class RLWESecAgg(MaskedSums):
    """Encryption under short keys that SecAgg+ sums.

    ``degree`` is N of the ring; left out, it is the one with which a payload takes the fewest
    bytes.
    """

    name: Literal["rlwe_secagg"] = "rlwe_secagg"
    degree: Literal[1024, 2048, 4096] | None = None

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator", "sites"})
    sums_integers: ClassVar[bool] = True

    def check(self, cohort: Cohort) -> None:
        """Refuse what SecAgg+ refuses, and a ring without room for a sum.

        Raises:
            ConsiliumError: the cohort cannot use the settings.
        """
        super().check(cohort)
        assert cohort.bits is not None  # else it was refused
        self.completed(Round("", 0, {}, 0, 0), cohort.selected, cohort.bits).parameters(1)

    def report(self, cohort: Cohort, public: Any) -> dict[str, Any]:
        """What the summary says, with the width of keys and errors before sums are known.

        Beside them it is half of that, which the security is that of.
        """
        said = {"computational_security": 128, "sigma": SIGMA, "sigma_beside_sums": SIGMA / 2}
        return super().report(cohort, public) | said

    def completed(self, begun: Round, selected: int, bits: int) -> KeyRound:
        """The round of SecAgg+, with what the form of payloads follows from."""
        return KeyRound.of(begun, selected, largest_quantised(bits), self.degree)

    def largest_masked(self, bits: int) -> int:
        """The largest coefficient of a key."""
        return BOUND

    def protect(self, update: CompressedUpdate, key: Masking) -> Payload:
        """The payload with the quantised values encrypted and the key masked.

        Key and errors follow from a secret of this site and round that never leaves it, so that an
        update that is protected again is sent as the same bytes.

        Raises:
            ConsiliumError: fewer of the site's holders than the threshold have exchanged keys.
        """
        round_, secrets, numbers = _key_round(key.round_), key.secrets, update.numbers
        parameters = round_.parameters(len(numbers))
        secret = derive_key(secrets.sealing.private, round_.label("short key", secrets.site))
        quantised = numbers.astype(np.int32, copy=False)
        hidden, short = encrypt(quantised, secret, round_.polynomials, parameters)
        masked = mask_update(short.astype(np.int32), secrets, key.advertised, key.sharing, round_)
        return Payload(
            update.site,
            update.round_number,
            update.weight,
            self.name,
            parameters.describe(),
            round_.fingerprint,
            len(numbers),
            join_content(hidden, masked, parameters),
            scalars=update.scalars,
        )

    def open_sum(self, length: int, round_number: int, context: KeyRound) -> Sum:
        """An empty sum: a ciphertext of ``length`` values, and a masked key."""
        parameters = context.parameters(length)
        content = (context, parameters, *empty_content(parameters, context, length))
        return Sum(round_number, length, content, context.fingerprint)

    def include(self, running: Sum, payload: Payload) -> None:
        """Add a payload's ciphertext and its masked key, in place.

        Raises:
            ConsiliumError: the payload is damaged.
        """
        round_, parameters, total, keys = running.content
        hidden, masked = split_content(payload, parameters, round_)
        add_ciphertexts(total, hidden, parameters)
        keys += masked

    def close(self, running: Sum) -> Payload:
        """The payload of the sum, still encrypted under the sum of the keys, which is masked.

        Raises:
            ConsiliumError: no payload was added.
        """
        _, parameters, total, keys = running.content
        return closed(running, join_content(total, keys, parameters))

    def masked_words(self, total: Payload, round_: Round) -> MaskedKey:
        """The sum of the masked keys ``(degree,)``; the lowest bits of each word alone count."""
        key_round = _key_round(round_)
        return split_content(total, key_round.parameters(total.length), key_round)[1]

    def unmasked(self, total: Payload, sums: npt.NDArray[np.int64], round_: Round) -> Payload:
        """The payload with the exact sum of the values, opened with the sum of the keys.

        Raises:
            SumLostError: that is not the key of the sum. Some site has sent a key and a ciphertext
                that do not belong together, and which one is hidden with the rest.
        """
        key_round = _key_round(round_)
        parameters = key_round.parameters(total.length)
        hidden, _ = split_content(total, parameters, key_round)
        half = 1 << (parameters.key_bits - 1)
        keys = (sums + half) % (2 * half) - half
        try:
            values = decrypt_sum(hidden, keys, total.length, key_round.polynomials, parameters)
        except ValueError as error:
            raise SumLostError(
                f"The sum of round {total.round_number} cannot be opened with the sum of the "
                f"sites' keys: {error}. Some site has sent a payload that is not under the key "
                "that it has masked; nobody can tell which one."
            ) from error
        encoding, body = encode_numbers(values)
        return replace(total, encoding=encoding, body=body)


def _key_round(round_: Round) -> KeyRound:
    """The round of :meth:`RLWESecAgg.begin`, which goes through SecAgg+'s protocol as its own."""
    assert isinstance(round_, KeyRound)
    return round_
