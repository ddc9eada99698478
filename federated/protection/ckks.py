"""CKKS: encrypted numbers whose decrypted sums are flooded with noise before anybody sees them.

It is as in MedHE (arXiv 2511.09043), but for additions alone: a number lies in a coefficient
instead of a slot, and there is no level for multiplication. Whoever opens a sum adds a discrete
Gaussian to it while it is still encrypted, wide enough to hide the noise that hides the key;
``flooding.py`` has the bound, its source and what it assumes. The parameters follow from it: the
smallest ciphertexts in which the noise stays below ``precision`` for values. Quantised values are
packed, several to a coefficient as in packed BFV, so far above the noise that rounding gives their
exact sum.

Guarantee: the coordinator learns of all updates what their sums say and nothing else, and cannot
find the key, with 128 − log2(24) = 123 bits of computational and ``statistical_security`` bits of
statistical security, under the ring-LWE assumption, while no holder of the sites' common key helps
it. Sites have to follow the protocol: encrypt with SEAL, flood, and open nothing but sums of this
round's payloads. The coordinator has to follow it too: a site cannot check here that what it is
given to open is such a sum.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil, log2
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.protection import homomorphic
from federated.protection.base import Cohort, Onlooker
from federated.protection.coefficients import coefficients_of, slots_of
from federated.protection.flooding import Flooding
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.packing import pack, unpack
from federated.protection.parameters import (
    MOST_BITS,
    PRIME_BITS,
    Parameters,
    Scheme,
    add_scheme,
    check_security,
)
from federated.protection.seal import seal_context
from federated.protection.wide_gaussian import WIDEST, Integers, fresh_source, wide_gaussian
from federated.update import CompressedUpdate, Payload

# For each ring degree, the bits of the prime that SEAL sets aside where there are several: the
# smallest prime that it finds.
SPARE_BITS = {4096: 16, 8192: 17, 16384: 17}
SMALLEST_PRIME_BITS = 30
# Quantised values in a coefficient: with 46 bits, floating-point transforms are off by a tenth at
# the most.
QUANTISED_BITS = 46
# A step of quantised values is 32 standard deviations of the noise: 0.4 of it, which is what
# rounding bears, are 12.8 of them, beyond which there is less than 2^-120.
QUANTISED_ROOM_BITS = 5
# Standard deviations of the noise that a value needs room for; the sampler's tails end before.
NOISE_ROOM = 16
# Bits of room, because primes are a little smaller than their bits say.
PRIME_ROOM = 0.05
# How the noise is put together, so that SEAL's floating-point encoder writes each part exactly.
FLOOD_RADIX = 2**28

SCHEME = add_scheme(Scheme("ckks", "CKKS", exact=False))


class CKKS(homomorphic.CiphertextSums):
    """Encryption by CKKS.

    ``statistical_security`` is in bits, for all openings of a run together. ``precision`` is the
    largest standard deviation that the noise of an opening may have in a summed value, and
    ``largest`` the largest magnitude of a summed value; for quantised values, whose sums are exact,
    neither matters. ``degree`` and ``coefficient_bits`` are set together; the last prime is SEAL's
    spare one where there are several. Without them the parameters are those with the smallest
    payload.
    """

    name: Literal["ckks"] = "ckks"
    degree: int | None = None
    coefficient_bits: tuple[int, ...] | None = None
    statistical_security: Annotated[int, Field(ge=30, le=128)] = 40
    precision: Annotated[float, Field(gt=0, le=1)] = 1e-6
    largest: Annotated[float, Field(gt=0, le=2**20)] = 64.0

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator"})

    @model_validator(mode="after")
    def _secure(self) -> "CKKS":
        if (self.degree is None) != (self.coefficient_bits is None):
            raise ValueError("degree and coefficient_bits are set together or not at all")
        if self.degree is not None and self.coefficient_bits is not None:
            check_security(self.degree, self.coefficient_bits)
            if min(self.coefficient_bits[:-1] or self.coefficient_bits) < SMALLEST_PRIME_BITS:
                raise ValueError(f"coefficient_bits are primes of at least {SMALLEST_PRIME_BITS}")
        return self

    def parameters(self, length: int, cohort: Cohort) -> Parameters:
        """The parameters for ``length`` numbers from each site of a cohort.

        Raises:
            ConsiliumError: there is no room for their sum and the noise of its openings.
        """
        degrees = MOST_BITS if self.degree is None else (self.degree,)
        digits = self._digits(cohort)
        possible = [
            found
            for degree in degrees
            for packed in digits
            if (found := self._fitting(degree, packed, length, cohort)) is not None
        ]
        if not possible:
            raise ConsiliumError(
                f"protection.name=ckks has no room for {cohort.selected} sites and the noise of "
                f"its openings: {self._needs(length, cohort)}. Lower "
                "protection.statistical_security, raise protection.precision, or leave out "
                "protection.degree and protection.coefficient_bits."
            )
        return min(possible, key=lambda parameters: parameters.bytes_for(length))

    def _digits(self, cohort: Cohort) -> range:
        """How many quantised values a coefficient may hold; 0 where they are not packed."""
        if cohort.bits is None:
            return range(1)
        return range(1, max(2, int(QUANTISED_BITS / log2(_base(cohort))) + 1))

    def _fitting(self, degree: int, digits: int, length: int, cohort: Cohort) -> Parameters | None:
        """Parameters of a degree, if there are any, with scale and modulus as small as can be."""
        packed = max(1, digits)
        coefficients = ceil(length / (degree * packed)) * degree
        flooding = Flooding(
            self.statistical_security, cohort.sites, cohort.rounds, cohort.selected, coefficients
        )
        if flooding.sigma > WIDEST:
            return None
        if digits:
            base = _base(cohort)
            scale = ceil(log2(flooding.sigma)) + QUANTISED_ROOM_BITS
            message = log2(base**digits + 2)
        else:
            base = 0
            scale = max(1, ceil(log2(flooding.sigma / self.precision)))
            message = log2(2 * (self.largest + NOISE_ROOM * self.precision))
        primes = self.coefficient_bits or _primes(degree, ceil(message + PRIME_ROOM) + scale)
        if primes is None or sum(primes) > MOST_BITS[degree]:
            return None
        found = Parameters(SCHEME, degree, primes, scale, base, packed, flooding)
        return found if scale + message + PRIME_ROOM <= found.modulus_bits else None

    def _needs(self, length: int, cohort: Cohort) -> str:
        degree = self.degree or max(MOST_BITS)
        flooding = Flooding(
            self.statistical_security,
            cohort.sites,
            cohort.rounds,
            cohort.selected,
            ceil(length / degree) * degree,
        )
        given = f" of protection.coefficient_bits={list(self.coefficient_bits or ())}"
        return (
            f"{flooding.openings} openings at {self.statistical_security} bits of statistical "
            f"security need noise of 2^{log2(flooding.sigma):.1f} in each coefficient, and what is "
            f"above it does not fit the modulus{given if self.coefficient_bits else ''}"
        )

    def protect(self, update: CompressedUpdate, key: SecretContext) -> Payload:
        """The payload with the numbers encrypted.

        Raises:
            ConsiliumError: a number is too large for the sum to be decrypted.
        """
        parameters = key.public.parameters
        if not parameters.base:
            # The sum of weighted values is no larger than the largest value before its weight.
            largest = float(np.abs(update.numbers).max(initial=0)) / update.weight
            if largest > largest_sum(parameters):
                raise ConsiliumError(
                    f"In round {update.round_number}, {update.site} has a value of {largest:.3g}; "
                    f"{parameters.describe()} has room for {largest_sum(parameters):.3g}. Set a "
                    "larger protection.largest."
                )
        return homomorphic.encrypt(update, self.name, _plaintexts(update.numbers, key.public), key)

    def reveal(self, total: Payload, key: SecretContext) -> npt.NDArray[np.float64]:
        """The numbers of a sum ``(length,)``: flooded, decrypted, and rounded if quantised.

        Raises:
            ConsiliumError: the sum is of another key, damaged, or longer than the key is made for.
        """
        import tenseal.sealapi as seal

        parameters = key.public.parameters
        encoder = seal.CKKSEncoder(seal_context(parameters))

        def read(plaintext: Any) -> npt.NDArray[np.float64]:
            numbers = coefficients_of(np.array(encoder.decode_complex(plaintext)))
            if not parameters.base:
                return numbers
            quantised = np.rint(numbers).astype(np.int64)
            return unpack(quantised, parameters.base, parameters.digits).astype(np.float64)

        return homomorphic.decrypt(total, key, read, flood(parameters))


def flood(parameters: Parameters) -> Callable[[Any], None]:
    """A function that adds the noise of an opening to a sum's ciphertext, in place.

    It has to be called before the ciphertext is decrypted. The noise is added under encryption,
    modulo q, because arithmetic is exact there: all that follows decryption sees the noised value
    alone. Every call draws anew.

    Raises:
        ConsiliumError: the parameters say nothing of the noise.
    """
    import tenseal.sealapi as seal

    flooding = parameters.flooding
    if flooding is None:
        raise ConsiliumError(
            f"A CKKS key of {parameters.describe()} says nothing of the noise that its sums need "
            "before anybody may see them, so no site opens one. Start a new run."
        )
    own = seal_context(parameters)
    evaluator, encoder = seal.Evaluator(own), seal.CKKSEncoder(own)
    radix, source = seal.Plaintext(), fresh_source()
    encoder.encode(FLOOD_RADIX, 1.0, radix)

    def add_noise(ciphertext: Any) -> None:
        noise = wide_gaussian(flooding.sigma, parameters.degree, source)
        high = (noise + FLOOD_RADIX // 2) // FLOOD_RADIX
        scale, ciphertext.scale = ciphertext.scale, 1.0
        # c + low + radix·(c + high) − radix·c: SEAL adds plaintexts to ciphertexts alone.
        shifted, taken = seal.Ciphertext(), seal.Ciphertext()
        evaluator.add_plain(ciphertext, _integers(encoder, high), shifted)
        evaluator.multiply_plain_inplace(shifted, radix)
        evaluator.multiply_plain(ciphertext, radix, taken)
        evaluator.add_plain_inplace(ciphertext, _integers(encoder, noise - high * FLOOD_RADIX))
        evaluator.add_inplace(ciphertext, shifted)
        evaluator.sub_inplace(ciphertext, taken)
        ciphertext.scale = scale

    return add_noise


def largest_sum(parameters: Parameters) -> float:
    """The largest magnitude of a decrypted value: half of the modulus, less room for the noise."""
    bits = parameters.modulus_bits - parameters.plain_bits - 1
    room: float = 2.0 ** (bits - PRIME_ROOM)
    sigma = parameters.flooding.sigma if parameters.flooding else 0.0
    return room - NOISE_ROOM * sigma * 2.0**-parameters.plain_bits


def _integers(encoder: Any, numbers: Integers) -> Any:
    """A plaintext whose coefficients are these integers.

    It is exact: for integers within 2^30, transforms of up to 2^15 doubles are off by less than
    2^-9.
    """
    import tenseal.sealapi as seal

    plaintext = seal.Plaintext()
    slots = slots_of(numbers.astype(np.float64)).tolist()
    encoder.encode(slots, 1.0, plaintext)
    return plaintext


def _base(cohort: Cohort) -> int:
    assert cohort.bits is not None
    return 2 * cohort.selected * largest_quantised(cohort.bits) + 1


def _primes(degree: int, needed: int) -> tuple[int, ...] | None:
    """The bits of nearly equal primes that make a modulus of ``needed``, and of the spare one."""
    if needed <= min(PRIME_BITS, MOST_BITS[degree]):
        return (max(needed, SMALLEST_PRIME_BITS),) if needed <= MOST_BITS[degree] else None
    if degree not in SPARE_BITS:
        return None
    count = max(2, -(-needed // PRIME_BITS))
    small, more = divmod(needed, count)
    return (*[small + 1] * more, *[small] * (count - more), SPARE_BITS[degree])


def _plaintexts(
    numbers: npt.NDArray[Any], public: PublicContext
) -> Iterator[Callable[[Any], None]]:
    import tenseal.sealapi as seal

    parameters = public.parameters
    encoder = seal.CKKSEncoder(seal_context(parameters))
    if parameters.base:
        numbers = pack(numbers, parameters.base, parameters.digits)
    degree = parameters.degree
    for start in range(0, len(numbers), degree):
        part = np.zeros(degree)
        part[: min(degree, len(numbers) - start)] = numbers[start : start + degree]
        yield partial(encoder.encode, slots_of(part).tolist(), 2.0**parameters.plain_bits)
