"""Sums of ciphertexts: what CKKS and packed BFV have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from federated.errors import ConsiliumError
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.parameters import Parameters
from federated.protection.protection import Sum, closed, count, refuse_other
from federated.protection.seal import join, load_ciphertexts, save_ciphertexts, seal_context
from federated.protection.seal import through_file as saved
from federated.update import CompressedUpdate, Payload


def encrypt(
    update: CompressedUpdate,
    scheme: str,
    slots: Iterable[Callable[[Any], None]],
    key: SecretContext,
) -> Payload:
    """A payload of one ciphertext for each of ``slots``, which fill a plaintext."""
    import tenseal.sealapi as seal

    parameters = key.public.parameters
    encryptor = seal.Encryptor(seal_context(parameters), key.key)
    parts = []
    for fill in slots:
        plaintext = seal.Plaintext()
        fill(plaintext)
        # Not into a Ciphertext: only what this returns is written with its seed.
        parts.append(saved(encryptor.encrypt_symmetric(plaintext).save))
    return Payload(
        update.site,
        update.round_number,
        update.weight,
        scheme,
        parameters.describe(),
        key.public.fingerprint,
        len(update.numbers),
        join(parts),
        below=update.below,
    )


class CiphertextSums:
    """The coordinator's part of a protection, which is the same for every scheme: adding.

    It needs the public context alone. To be inherited beside ``Protection``.
    """

    name: str
    keyed: ClassVar[bool] = True

    def check(self, sites: int, bits: int | None) -> None:
        """Refuse what has no head room; the number of values does not matter for that."""
        self.parameters(1, sites, bits)

    @abstractmethod
    def parameters(self, length: int, sites: int, bits: int | None) -> Parameters:
        """The lattice parameters for ``length`` numbers from each of ``sites``.

        Raises:
            ConsiliumError: no head room for the sum, or numbers that cannot be added.
        """

    def open_sum(self, length: int, round_number: int, context: PublicContext) -> Sum:
        """An empty sum under a context."""
        return Sum(round_number, length, (context, []))

    def add(self, running: Sum, payload: Payload) -> None:
        """Add a payload's ciphertexts to those of the sum, in place.

        Raises:
            ConsiliumError: the payload is of another context, round or length, or damaged.
        """
        import tenseal.sealapi as seal

        context, total = running.content
        refuse_other(running, payload, self.name, context.fingerprint)
        own = seal_context(context.parameters)
        expected = context.parameters.ciphertexts(running.length)
        ciphertexts = _ciphertexts(payload, own, expected)
        if total:
            evaluator = seal.Evaluator(own)
            for one, other in zip(total, ciphertexts, strict=True):
                evaluator.add_inplace(one, other)
        else:
            total.extend(ciphertexts)
        count(running, payload)

    def close(self, running: Sum) -> Payload:
        """The sum's ciphertexts."""
        return closed(running, save_ciphertexts(running.content[1]))


def decrypt(
    total: Payload, key: SecretContext, read: Callable[[Any], np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """The numbers of a sum, one array a ciphertext by ``read``, cut to the sum's length.

    Raises:
        ConsiliumError: the sum is of another key, or damaged, or its noise has used up the head
            room.
    """
    import tenseal.sealapi as seal

    if total.context != key.public.fingerprint:
        raise ConsiliumError(
            f"The sum of round {total.round_number} is encrypted under {total.context}; this site "
            f"has the key {key.public.fingerprint}."
        )
    parameters = key.public.parameters
    own = seal_context(parameters)
    decryptor = seal.Decryptor(own, key.key)
    parts = []
    for ciphertext in _ciphertexts(total, own, parameters.ciphertexts(total.length)):
        if parameters.scheme == "packed_bfv" and decryptor.invariant_noise_budget(ciphertext) == 0:
            raise ConsiliumError(
                f"The sum of round {total.round_number} cannot be decrypted: its noise has used up "
                f"the head room of {parameters.describe()}. Leave out protection.plain_bits."
            )
        plaintext = seal.Plaintext()
        decryptor.decrypt(ciphertext, plaintext)
        parts.append(read(plaintext))
    return np.concatenate(parts)[: total.length]


def _ciphertexts(payload: Payload, context: Any, expected: int) -> list[Any]:
    try:
        return load_ciphertexts(context, payload.body, expected)
    except ValueError as error:
        raise ConsiliumError(
            f"The payload of {payload.site} in round {payload.round_number} is damaged: {error}. "
            "Send it again; resuming the run does so."
        ) from error
