"""CKKS: encrypted real numbers, as in MedHE (arXiv 2511.09043), whose sums are approximate.

Only sums are needed, so there is one prime of 40 bits and no level for multiplication: a sixth of
the bytes of the parameters usually found in federated learning. With a scale of 2^30 the mean of
ten sites is off by about 1e-6.

Guarantee: as for packed BFV, with one reservation. A decrypted CKKS result holds a little of the
noise that hides the key (Li and Micciancio, Eurocrypt 2021); who is given results without having
the key may learn it. Keep decrypted sums at the sites, or use packed BFV, which is exact.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from federated.compression.quantize import largest_level
from federated.errors import ConsiliumError
from federated.protection import homomorphic
from federated.protection.keys import PublicContext, SecretContext
from federated.protection.parameters import Parameters, check_security
from federated.protection.protection import Onlooker, Protection
from federated.protection.seal import seal_context
from federated.update import CompressedUpdate, Payload

DEGREES = (2048, 4096)


class CKKS(homomorphic.CiphertextSums, Protection):
    """``scale_bits`` is log2 of the scale; without a degree, the smaller payload is chosen."""

    name: Literal["ckks"] = "ckks"
    degree: int | None = None
    coefficient_bits: tuple[int, ...] = (40,)
    scale_bits: Annotated[int, Field(ge=10, le=50)] = 30

    hides_updates_from: ClassVar[frozenset[Onlooker] | None] = frozenset({"coordinator"})

    @model_validator(mode="after")
    def _secure(self) -> "CKKS":
        check_security(self.degree or DEGREES[0], self.coefficient_bits)
        return self

    def parameters(self, length: int, sites: int, bits: int | None) -> Parameters:
        """The parameters for ``length`` numbers from each of ``sites``.

        Raises:
            ConsiliumError: no head room for their sum.
        """
        degrees = DEGREES if self.degree is None else (self.degree,)
        possible = [
            Parameters("ckks", degree, self.coefficient_bits, self.scale_bits) for degree in degrees
        ]
        chosen = min(possible, key=lambda parameters: parameters.bytes_for(length))
        largest = 1 if bits is None else sites * largest_level(bits)
        if largest > largest_sum(chosen):
            raise ConsiliumError(
                f"protection.name=ckks has no head room for {sites} sites: sums up to {largest} do "
                f"not fit {chosen.describe()}, which holds up to {largest_sum(chosen):.3g}. Lower "
                "protection.scale_bits or compression.bits, or raise protection.coefficient_bits."
            )
        return chosen

    def protect(self, update: CompressedUpdate, key: SecretContext) -> Payload:
        """Encrypt the numbers.

        Raises:
            ConsiliumError: a number is too large for the sum to be decrypted.
        """
        parameters = key.public.parameters
        # The sum of weighted values is no larger than the largest value before its weight.
        values = update.numbers.dtype.kind == "f"
        largest = float(np.abs(update.numbers).max(initial=0)) / (update.weight if values else 1)
        if largest > largest_sum(parameters):
            raise ConsiliumError(
                f"In round {update.round_number}, {update.site} has a value of {largest:.3g}; "
                f"{parameters.describe()} has room for {largest_sum(parameters):.3g}. Set a "
                "smaller protection.scale_bits."
            )
        return homomorphic.encrypt(update, self.name, _plaintexts(update.numbers, key.public), key)

    def reveal(self, total: Payload, key: SecretContext) -> npt.NDArray[np.float64]:
        """Decrypt."""
        import tenseal.sealapi as seal

        encoder = seal.CKKSEncoder(seal_context(key.public.parameters))
        return homomorphic.decrypt(
            total, key, lambda plaintext: np.array(encoder.decode_double(plaintext))
        )


def largest_sum(parameters: Parameters) -> float:
    """The largest magnitude that a decrypted number may have: half of the modulus, and one bit."""
    return 2.0 ** (parameters.modulus_bits - parameters.plain_bits - 2)


def _plaintexts(
    numbers: npt.NDArray[Any], public: PublicContext
) -> Iterator[Callable[[Any], None]]:
    import tenseal.sealapi as seal

    parameters = public.parameters
    encoder = seal.CKKSEncoder(seal_context(parameters))
    scale = 2.0**parameters.plain_bits
    size = parameters.numbers_a_ciphertext
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size].tolist()
        yield partial(encoder.encode, part, scale)
