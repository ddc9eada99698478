"""Parameters of the lattice schemes: 128-bit security, head room for the sum, and their choice.

All sites encrypt with the same secret key, and the coordinator only adds. So no parameters for
multiplication are needed: the coefficient modulus q holds the sum and its noise, and no more.

Head room. BFV decrypts exactly while the noise of the sum stays below q/2t. A fresh symmetric
ciphertext has noise of at most 21 in a coefficient, and rounding adds one half; so K of them are
decrypted exactly, for certain, where log2 q ≥ log2 t + log2 K + log2(2 · 21.5). CKKS instead needs
room for the noise that openers add; see ``ckks.py``.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from math import ceil, log2
from typing import Any

from federated.errors import ConsiliumError
from federated.protection.flooding import NOISE_BOUND, Flooding

# log2 of the largest q with 128-bit security for a ternary secret, by ring degree: the Homomorphic
# Encryption Standard (Albrecht et al. 2018), Table 1, as in SEAL.
MOST_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
# SEAL's largest prime.
PRIME_BITS = 60
NOISE_BITS = log2(2 * (NOISE_BOUND + 0.5))


@dataclass(frozen=True)
class Scheme:
    """A lattice scheme of SEAL, as a protection uses it.

    Args:
        name: the protection's name.
        seal_type: the name of SEAL's type.
        exact: whether plaintexts are integers below a modulus, and a sum is decrypted exactly until
            its noise budget is used up, as in BFV; in CKKS they are scaled, and noise remains.
    """

    name: str
    seal_type: str
    exact: bool

    @property
    def plain_word(self) -> str:
        """The word for what ``plain_bits`` are the bits of."""
        return "plain" if self.exact else "scale"


# The schemes by their names; a protection adds its own.
SCHEMES: dict[str, Scheme] = {}


def add_scheme(scheme: Scheme) -> Scheme:
    """Let keys of a scheme be read, and return the scheme."""
    SCHEMES[scheme.name] = scheme
    return scheme


@dataclass(frozen=True)
class Parameters:
    """What fixes the form of a ciphertext, known to everyone.

    ``plain_bits`` are the bits of BFV's plaintext modulus or of CKKS' scale. ``base`` and
    ``digits`` say how several quantised values share a slot of packed BFV or a coefficient of CKKS;
    where nothing is quantised they are 0 and 1. ``flooding`` is what openers of CKKS add.
    """

    scheme: Scheme
    degree: int
    coefficient_bits: tuple[int, ...]
    plain_bits: int
    base: int = 0
    digits: int = 1
    flooding: Flooding | None = None

    @property
    def numbers_a_ciphertext(self) -> int:
        """How many numbers one ciphertext holds."""
        return self.degree * self.digits

    @property
    def data_bits(self) -> tuple[int, ...]:
        """The bits of the primes that ciphertexts have.

        SEAL sets the last of several primes aside for key switching, in BFV where what is left is
        enough for the plaintext modulus.
        """
        first = self.coefficient_bits[:-1]
        keeps_last = not first or (self.scheme.exact and sum(first) <= self.plain_bits)
        return self.coefficient_bits if keeps_last else first

    @property
    def modulus_bits(self) -> int:
        """log2 of the modulus that ciphertexts have."""
        return sum(self.data_bits)

    def bits_for_sum(self, sites: int) -> float:
        """log2 of a modulus with which the sum over ``sites`` is decrypted for certain."""
        return self.plain_bits + log2(sites) + NOISE_BITS

    def ciphertexts(self, length: int) -> int:
        """How many ciphertexts hold ``length`` numbers."""
        return ceil(length / self.numbers_a_ciphertext)

    def bytes_for(self, length: int) -> int:
        """About how many bytes ``length`` numbers take in seed-compressed ciphertexts."""
        slot = sum(min(8, (bits + 7) / 8) for bits in self.data_bits)
        return round(self.ciphertexts(length) * self.degree * slot)

    @property
    def largest_bytes(self) -> int:
        """The most bytes that a ciphertext takes, uncompressed and with everything beside it."""
        return 2 * len(self.data_bits) * self.degree * 8 + 1024

    def describe(self) -> str:
        """The parameters in one line, as it stands in headers and messages."""
        primes = "+".join(map(str, self.coefficient_bits))
        line = f"degree {self.degree}, coefficients {primes} bits, "
        line += f"{self.scheme.plain_word} {self.plain_bits} bits"
        return line + (f", {self.digits} a slot in base {self.base}" if self.base else "")

    def to_json(self) -> dict[str, Any]:
        """The parameters as plain values."""
        plain = {"scheme": self.scheme.name, "coefficient_bits": list(self.coefficient_bits)}
        return asdict(self) | plain

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Parameters":
        """The parameters from plain values that :meth:`to_json` gave.

        Raises:
            ValueError: they are of a scheme that no protection has, or hold what is no whole
                number where one is needed, as 4096.0 is.
        """
        flooding = value.get("flooding")
        numbers = [value.get(key) for key in ("degree", "plain_bits", "base", "digits")]
        numbers += [*value["coefficient_bits"], *(flooding.values() if flooding else ())]
        if any(type(number) is not int for number in numbers):
            raise ValueError(f"not all of {numbers!r:.200} are whole numbers")
        if value.get("scheme") not in SCHEMES:
            raise ValueError(f"there is no scheme {value.get('scheme')!r:.80}")
        return Parameters(
            **value
            | {
                "scheme": SCHEMES[value["scheme"]],
                "coefficient_bits": tuple(value["coefficient_bits"]),
                "flooding": Flooding(**flooding) if flooding else None,
            }
        )

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ between different parameters."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_security(degree: int, coefficient_bits: tuple[int, ...]) -> None:
    """Refuse what has less than 128-bit security, or what SEAL cannot make.

    Raises:
        ValueError: a bound is broken; the message says which, and what would be allowed.
    """
    if not coefficient_bits:
        raise ValueError(f"coefficient_bits are one or more primes of at most {PRIME_BITS} bits")
    most = MOST_BITS.get(degree)
    if most is None:
        raise ValueError(f"degree {degree} is none of {', '.join(map(str, MOST_BITS))}")
    total = sum(coefficient_bits)
    if total > most:
        enough = next((d for d, bits in MOST_BITS.items() if bits >= total), None)
        remedy = f"take degree {enough}" if enough else "take fewer or smaller primes"
        raise ValueError(
            f"{total} bits of coefficients at degree {degree} have less than 128-bit security, "
            f"which allows {most}; {remedy}"
        )
    if max(coefficient_bits) > PRIME_BITS:
        raise ValueError(f"coefficient_bits are one or more primes of at most {PRIME_BITS} bits")


def check_head_room(parameters: Parameters, sites: int) -> None:
    """Refuse parameters with which the sum over all sites might not be decrypted.

    Raises:
        ConsiliumError: the message says how much is missing and what to change.
    """
    needed = parameters.bits_for_sum(sites)
    if needed > parameters.modulus_bits:
        raise ConsiliumError(
            f"protection.name={parameters.scheme.name} has too little head room for {sites} sites: "
            f"their sum needs {needed:.1f} bits of coefficients, and {parameters.describe()} has "
            f"{parameters.modulus_bits}. Set a smaller protection.plain_bits, larger "
            "protection.coefficient_bits with a larger protection.degree, or leave all three out."
        )
