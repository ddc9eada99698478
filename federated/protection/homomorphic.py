"""Sums of ciphertexts: what CKKS and packed BFV have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from math import log2
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from federated.errors import ConsiliumError
from federated.protection.base import (
    Cohort,
    HiddenUpdates,
    Sum,
    closed,
)
from federated.protection.flooding import COMPUTATIONAL_SECURITY
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.parameters import Parameters
from federated.protection.seal import join, load_ciphertexts, save_ciphertexts, seal_context
from federated.protection.seal import through_file as saved
from federated.protection.seal_bytes import unpacked
from federated.protection.tags import Words
from federated.update import CompressedUpdate, Payload


def encrypt(
    update: CompressedUpdate,
    scheme: str,
    slots: Iterable[Callable[[Any], None]],
    key: SecretContext,
) -> Payload:
    """A payload of one ciphertext for each of ``slots``.

    Args:
        update: the compressed update, for the payload's header.
        scheme: the protection's name.
        slots: functions that each fill a plaintext.
        key: the sites' key.
    """
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
        scalars=update.scalars,
    )


class CiphertextSums(HiddenUpdates):
    """The coordinator's part of a protection, adding, which is the same for every scheme.

    It needs the public context alone. A sum counts once ``openers`` sites have opened it as the
    same numbers; or, when all n in it were asked, more than half of them. So that many, or n/2 + 1
    where that is less, would have to lie together to have another one counted, within the bounds of
    such sums; and as long as the rest of the n are as many, those who open it otherwise, or not at
    all, are passed over by name. With two of two sites nobody can tell which of them lies.
    """

    openers: Annotated[int, Field(ge=1)] = 1

    keyed: ClassVar[bool] = True

    def check(self, cohort: Cohort) -> None:
        """Refuse too few sites or openers, and settings without head room even for a number.

        Raises:
            ConsiliumError: the cohort cannot use the settings.
        """
        if self.openers > self.min_sites:
            raise ConsiliumError(
                f"protection.openers={self.openers} sites are to open a sum, and one may have only "
                f"protection.min_sites={self.min_sites} in it. Lower protection.openers, or raise "
                "protection.min_sites."
            )
        if self.openers > 1 and cohort.bits is None:
            raise ConsiliumError(
                f"protection.openers={self.openers} sites cannot open a sum as the same numbers "
                "where nothing is quantised, since each adds noise of its own. Set "
                "compression.bits, for example to 8, or leave out protection.openers."
            )
        self.parameters(1, cohort)
        super().check(cohort)

    @abstractmethod
    def parameters(self, length: int, cohort: Cohort) -> Parameters:
        """The lattice parameters for ``length`` numbers from each site of a cohort.

        Raises:
            ConsiliumError: there is no head room for the sum, or the numbers cannot be added.
        """

    def report(self, cohort: Cohort, public: Any) -> dict[str, Any]:
        """What the summary says, with the key's parameters and the noise of openings."""
        parameters: Parameters = public.parameters
        said = {"key": public.fingerprint, "parameters": parameters.describe()}
        flooding = parameters.flooding
        if flooding is None:
            return super().report(cohort, public) | said | {"computational_security": 128}
        noise = flooding.sigma / 2.0**parameters.plain_bits
        return (
            super().report(cohort, public)
            | said
            | {
                "computational_security": COMPUTATIONAL_SECURITY,
                "statistical_security": flooding.security,
                "openings": flooding.openings,
                "openings_each_site": flooding.openings_each,
                "largest_advantage_log2": -round(flooding.advantage_bits, 1),
                "noise_log2": round(log2(flooding.sigma), 1),
                # Quantised values are rounded to their exact sums.
                "noise_in_a_sum": None if parameters.base else noise,
            }
        )

    def open_sum(self, length: int, round_number: int, context: PublicContext) -> Sum:
        """An empty sum of ``length`` numbers under a context."""
        return Sum(round_number, length, (context, []), context.fingerprint)

    def include(self, running: Sum, payload: Payload) -> None:
        """Add a payload's ciphertexts to those of the sum, in place.

        Raises:
            ConsiliumError: the payload is damaged.
        """
        import tenseal.sealapi as seal

        context, total = running.content
        own = seal_context(context.parameters)
        ciphertexts = _ciphertexts(payload, own, context.parameters)
        if total:
            evaluator = seal.Evaluator(own)
            for running_sum, ciphertext in zip(total, ciphertexts, strict=True):
                evaluator.add_inplace(running_sum, ciphertext)
        else:
            total.extend(ciphertexts)

    def close(self, running: Sum) -> Payload:
        """The payload with the sum's ciphertexts.

        Raises:
            ConsiliumError: no payload was added.
        """
        return closed(running, save_ciphertexts(running.content[1]))


def decrypt(
    total: Payload,
    key: SecretContext,
    read: Callable[[Any], np.ndarray[Any, Any]],
    before: Callable[[Any], None] | None = None,
) -> np.ndarray[Any, Any]:
    """The numbers ``(length,)`` of a sum, read from one ciphertext after the other.

    Args:
        total: the sum, still encrypted.
        key: the sites' key.
        read: maps a decrypted plaintext to its numbers.
        before: what has to happen to a ciphertext before it may be decrypted, in place.

    Raises:
        ConsiliumError: the sum is of another key, longer than the key is made for or damaged, or
            its noise has used up the head room.
    """
    import tenseal.sealapi as seal

    if total.context != key.public.fingerprint:
        raise ConsiliumError(
            f"The sum of round {total.round_number} is encrypted under {total.context}; this site "
            f"has the key {key.public.fingerprint}."
        )
    parameters = key.public.parameters
    expected = parameters.ciphertexts(total.length)
    flooding = parameters.flooding
    if flooding is not None and expected * parameters.degree > flooding.coefficients:
        raise ConsiliumError(
            f"The sum of round {total.round_number} has {total.length} numbers, more than this "
            "key's noise is made for. Start a new run, which makes a key of its own."
        )
    own = seal_context(parameters)
    decryptor = seal.Decryptor(own, key.key)
    parts = []
    for ciphertext in _ciphertexts(total, own, parameters):
        if before is not None:
            before(ciphertext)
        if parameters.scheme.exact and decryptor.invariant_noise_budget(ciphertext) == 0:
            raise ConsiliumError(
                f"The sum of round {total.round_number} cannot be decrypted: its noise has used up "
                f"the head room of {parameters.describe()}. Leave out protection.plain_bits."
            )
        plaintext = seal.Plaintext()
        decryptor.decrypt(ciphertext, plaintext)
        parts.append(read(plaintext))
    return np.concatenate(parts)[: total.length]


def residues(payload: Payload, parameters: Parameters) -> Iterator[tuple[int, Words]]:
    """The primes and numbers of a payload's ciphertexts, each with its seed expanded.

    They are those that adding adds: for each ciphertext, for each of its two polynomials, each
    prime with the polynomial's coefficients modulo it.

    Raises:
        ConsiliumError: the payload is damaged.
    """
    own = seal_context(parameters)
    primes = data_primes(parameters)
    for ciphertext in _ciphertexts(payload, own, parameters):
        whole = unpacked(saved(ciphertext.save), parameters.largest_bytes)
        count = 2 * len(primes) * parameters.degree
        rows = np.frombuffer(whole[-8 * count :], "<u8").reshape(-1, parameters.degree)
        for row, words in enumerate(rows):
            yield primes[row % len(primes)], words


def residue_forms(parameters: Parameters, length: int) -> list[tuple[int, int]]:
    """Of a payload of ``length`` numbers, the primes of :func:`residues` and how many each has."""
    primes, polynomials = data_primes(parameters), 2 * parameters.ciphertexts(length)
    return [(prime, parameters.degree) for _ in range(polynomials) for prime in primes]


def data_primes(parameters: Parameters) -> list[int]:
    """The primes of a ciphertext, in order."""
    import tenseal.sealapi as seal

    chosen = seal.CoeffModulus.Create(parameters.degree, list(parameters.coefficient_bits))
    primes = [int(prime.value()) for prime in chosen]
    # SEAL keeps the last of several for switching keys; ciphertexts do not have it.
    return primes[:-1] if len(primes) > 1 else primes


def _ciphertexts(payload: Payload, context: Any, parameters: Parameters) -> list[Any]:
    try:
        return load_ciphertexts(
            context, payload.body, parameters.ciphertexts(payload.length), parameters.largest_bytes
        )
    except ValueError as error:
        raise ConsiliumError(
            f"The payload of {payload.site} in round {payload.round_number} is damaged: {error}. "
            "Send it again; resuming the run does so."
        ) from error
