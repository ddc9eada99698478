"""How much noise a decrypted CKKS sum needs before anybody may see it.

A CKKS ciphertext is (c0, c1) with c0 + c1·s = m + e: decryption gives the message together with the
noise e that hides the key s, and with the ciphertext at hand the key follows (Li and Micciancio,
Eurocrypt 2021). The remedy is that of Li, Micciancio, Schultz and Sorrell, "Securing Approximate
Homomorphic Encryption Using Differential Privacy", Crypto 2022 (ePrint 2022/816): whoever decrypts
adds a discrete Gaussian f to the decrypted polynomial, wide enough that m + e + f says next to
nothing of e.

The bound. One opening shows polynomials of n coefficients in all. A fresh symmetric ciphertext of
SEAL has |e| ≤ 21 in every coefficient (:data:`NOISE_BOUND`), so a sum of K has ‖e‖ ≤ 21·K·√n =: t,
whoever encrypted what: this is a static worst case, which no message can change. Discrete Gaussians
of standard deviation σ whose centres are integers and t apart have the Kullback-Leibler divergence
t²/(2σ²), and divergences of q openings, each chosen after the last, add up. With

    σ = t·√(12·q)·2^(s/2)

that is q·t²/(2σ²) = 2^(−s)/24. This is the condition under which that paper shows that a scheme
whose encryption has c + log2(24) bits of security has c bits of computational and s bits of
statistical security against whoever sees ciphertexts and q decrypted results (IND-CPA-D).

What s bits mean. In telling two cases apart they allow, by Pinsker's inequality, an advantage of at
most 2^(−s/2)/√48, that is 2^(−22.8) at s = 40: bits of security count squared advantages. In
finding the key they cost hardly anything: the Rényi divergence of order a is a·2^(−s)/24, so an
event of probability p without the openings has at most p^(1 − 1/a)·exp(a·2^(−s)/24) with them, for
every a > 1.

It assumes that encryption alone is secure (128 bits by the table in ``parameters.py``); that every
ciphertext in the sum was made by SEAL, as sites that follow the protocol do; that each opener draws
its noise from its own operating system; and that openings are counted: a key opens
:attr:`Flooding.openings_each` times at each site and no more. A coordinator that hands a site
something else than a sum of fresh ciphertexts is outside of the bound.
"""

from dataclasses import dataclass
from math import floor, log2, sqrt

# The largest noise in a coefficient of a fresh ciphertext: SEAL draws from a centred binomial of 42
# bits or, if it is built so, from a normal distribution with σ = 3.2 cut at six σ.
NOISE_BOUND = 21
# In bits, of the 128 of encryption alone.
COMPUTATIONAL_SECURITY = floor(128 - log2(24))
# Every round may be opened once more by each site, as after a crash.
OPENINGS_A_ROUND = 2


@dataclass(frozen=True)
class Flooding:
    """What the noise of openings is measured by; it is the same for everything that a key opens.

    Attributes:
        security: s, statistical security in bits.
        openers: how many sites hold the key.
        rounds: how many rounds the key is made for.
        sites: K, the most ciphertexts in a sum.
        coefficients: n, in all the polynomials of one opening.
    """

    security: int
    openers: int
    rounds: int
    sites: int
    coefficients: int

    @property
    def openings_each(self) -> int:
        """The number of times that one site may open with the key."""
        return OPENINGS_A_ROUND * self.rounds

    @property
    def openings(self) -> int:
        """The number q of times that all sites together may open with the key."""
        return self.openings_each * self.openers

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise in each coefficient of a decrypted polynomial."""
        error = NOISE_BOUND * self.sites * sqrt(self.coefficients)
        spread: float = 2.0 ** (self.security / 2)
        return error * sqrt(12 * self.openings) * spread

    @property
    def advantage_bits(self) -> float:
        """−log2 of the largest advantage in telling from all openings to which key they belong."""
        return self.security / 2 + log2(48) / 2
