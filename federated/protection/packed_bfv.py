"""Packed BFV: quantised updates, several in a slot, whose sums are exact.

A slot holds v quantised values, as digits in a base B (``packing.py``), where B^v ≤ t, the
plaintext modulus. That the sum is decrypted exactly follows from the bound in ``parameters.py``;
nothing is estimated, and nothing of the ciphertexts' noise is in what is decrypted, so that it
needs no flooding.

Guarantee: the coordinator learns nothing of any update under the ring-LWE assumption at 128 bits,
for as long as no holder of the sites' common key helps it and it hands over for opening what it
should, the sum of the round's payloads: a site cannot check that here.
"""

from collections.abc import Callable, Iterator
from functools import cache, partial
from math import log2
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from federated.compression.quantize import largest_quantised
from federated.errors import ConsiliumError
from federated.protection import homomorphic
from federated.protection.base import Cohort, Onlooker
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.packing import pack, unpack
from federated.protection.parameters import (
    Parameters,
    Scheme,
    add_scheme,
    check_head_room,
    check_security,
)
from federated.protection.seal import plain_modulus, seal_context
from federated.update import CompressedUpdate, Payload

# The rings that are tried, each with the largest modulus that costs nothing for key switching.
CANDIDATES: tuple[tuple[int, tuple[int, ...]], ...] = (
    (1024, (27,)),
    (2048, (54,)),
    (4096, (60,)),
    (4096, (54, 54)),
)
LARGEST_PLAIN_BITS = 60

SCHEME = add_scheme(Scheme("packed_bfv", "BFV", exact=True))


class PackedBFV(homomorphic.CiphertextSums):
    """Encryption by packed BFV.

    Without ``degree``, ``coefficient_bits`` and ``plain_bits`` the parameters are those that take
    the fewest bytes for what is sent.
    """

    name: Literal["packed_bfv"] = "packed_bfv"
    degree: int | None = None
    coefficient_bits: tuple[int, ...] | None = None
    plain_bits: Annotated[int, Field(ge=14, le=LARGEST_PLAIN_BITS)] | None = None

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator"})
    sums_integers: ClassVar[bool] = True

    @model_validator(mode="after")
    def _secure(self) -> "PackedBFV":
        if (self.degree is None) != (self.coefficient_bits is None):
            raise ValueError("degree and coefficient_bits are set together or not at all")
        if self.degree is not None and self.coefficient_bits is not None:
            check_security(self.degree, self.coefficient_bits)
        return self

    def parameters(self, length: int, cohort: Cohort) -> Parameters:
        """The parameters for ``length`` quantised values from each site of a cohort.

        Raises:
            ConsiliumError: nothing is quantised, or the settings leave no head room for the sum.
        """
        sites, bits = cohort.selected, cohort.bits
        if bits is None:
            raise ConsiliumError(
                "protection.name=packed_bfv adds integers, so it needs quantised updates: set "
                "compression.bits, for example to 8."
            )
        base = 2 * sites * largest_quantised(bits) + 1
        rings = CANDIDATES
        if self.degree is not None and self.coefficient_bits is not None:
            rings = ((self.degree, self.coefficient_bits),)
        possible = [
            parameters
            for degree, primes in rings
            for parameters in self._packings(degree, primes, base, sites)
        ]
        if not possible:
            raise ConsiliumError(
                f"protection.name=packed_bfv has no head room for {sites} sites with "
                f"compression.bits={bits}: their sum needs {log2(base):.1f} bits of "
                f"plaintext{self._given()}. Lower compression.bits or sites.count, or leave out "
                "protection.plain_bits, coefficient_bits and degree."
            )
        return min(possible, key=lambda parameters: parameters.bytes_for(length))

    def _packings(
        self, degree: int, primes: tuple[int, ...], base: int, sites: int
    ) -> Iterator[Parameters]:
        for digits in range(1, LARGEST_PLAIN_BITS):
            bits = self.plain_bits or smallest_plain_bits(degree, base**digits)
            if bits is None or largest_plain(degree, bits) < base**digits:
                return
            parameters = Parameters(SCHEME, degree, primes, bits, base, digits)
            if parameters.bits_for_sum(sites) > parameters.modulus_bits:
                if self.plain_bits and self.degree:  # no other ring is tried
                    check_head_room(parameters, sites)
                return
            yield parameters

    def _given(self) -> str:
        given = self.model_dump(exclude={"name", "min_sites", "openers"}, exclude_none=True)
        if not given:
            return ""
        return (
            ", and " + ", ".join(f"{key}={value}" for key, value in given.items()) + " leave less"
        )

    def protect(self, update: CompressedUpdate, key: SecretContext) -> Payload:
        """The payload with the quantised values packed and encrypted."""
        return homomorphic.encrypt(update, self.name, _plaintexts(update.numbers, key.public), key)

    def reveal(self, total: Payload, key: SecretContext) -> npt.NDArray[np.float64]:
        """The numbers of a sum ``(length,)``: decrypted, with the digits taken apart.

        Raises:
            ConsiliumError: the sum is of another key or damaged, or has used up the head room.
        """
        import tenseal.sealapi as seal

        parameters = key.public.parameters
        encoder = seal.BatchEncoder(seal_context(parameters))

        def read(plaintext: Any) -> npt.NDArray[np.float64]:
            slots = np.array(encoder.decode_int64(plaintext), np.int64)
            return unpack(slots, parameters.base, parameters.digits).astype(np.float64)

        return homomorphic.decrypt(total, key, read)


def smallest_plain_bits(degree: int, capacity: int) -> int | None:
    """The fewest bits of a plaintext modulus with slots that is at least ``capacity``, if any."""
    for bits in range(max(14, degree.bit_length() + 1), LARGEST_PLAIN_BITS + 1):
        if 2**bits >= capacity and largest_plain(degree, bits) >= capacity:
            return bits
    return None


@cache  # SEAL looks for the prime anew each time, and parameters are chosen from many
def largest_plain(degree: int, bits: int) -> int:
    """The largest plaintext modulus of ``bits`` bits with slots; 0 where there is no such prime."""
    try:
        return int(plain_modulus(degree, bits).value())
    except (RuntimeError, ValueError):
        return 0


def _plaintexts(
    quantised: npt.NDArray[Any], public: PublicContext
) -> Iterator[Callable[[Any], None]]:
    import tenseal.sealapi as seal

    parameters = public.parameters
    encoder = seal.BatchEncoder(seal_context(parameters))
    slots = pack(quantised, parameters.base, parameters.digits)
    for start in range(0, len(slots), parameters.degree):
        part = slots[start : start + parameters.degree].tolist()
        yield partial(encoder.encode, part)
