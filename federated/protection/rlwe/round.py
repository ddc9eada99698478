"""A round in which SecAgg+ sums short keys: what all parties know of it beside SecAgg+'s own."""

from dataclasses import dataclass, fields
from hashlib import sha256

from federated.errors import ConsiliumError
from federated.protection.rlwe.parameters import RingParameters, fit_parameters
from federated.protection.secagg.round import Round


@dataclass(frozen=True, kw_only=True)
class KeyRound(Round):
    """A round of SecAgg+ with what the form of its payloads follows from.

    Attributes:
        senders: the most sites in a sum.
        base: B of packing: sums of quantised values lie within less than half of it.
        degree: N of the ring, if it is given.
    """

    senders: int
    base: int
    degree: int | None

    @staticmethod
    def of(begun: Round, senders: int, largest: int, degree: int | None) -> "KeyRound":
        """The round ``begun``, with values up to ±``largest`` from at most so many senders."""
        own = {field.name: getattr(begun, field.name) for field in fields(begun)}
        return KeyRound(**own, senders=senders, base=2 * senders * largest + 1, degree=degree)

    def parameters(self, length: int) -> RingParameters:
        """What payloads of ``length`` values are encrypted with.

        Raises:
            ConsiliumError: there is no room for the sum.
        """
        found = fit_parameters(length, self.senders, self.base, self.degree)
        if found is None:
            given = "" if self.degree is None else f" of protection.degree={self.degree}"
            raise ConsiliumError(
                f"protection.name=rlwe_secagg has no room for the sum of {self.senders} sites in "
                f"the ring{given}: values of that sum are digits in base {self.base}. Lower "
                "compression.bits or sites.count, or leave out protection.degree."
            )
        return found

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between runs, rounds and settings."""
        text = f"{super().fingerprint}|{self.senders}|{self.base}|{self.degree}"
        return sha256(text.encode()).hexdigest()[:32]

    @property
    def polynomials(self) -> str:
        """What the public polynomials of the round follow from."""
        return self.label("public polynomials")
