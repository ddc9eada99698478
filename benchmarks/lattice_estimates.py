"""Numbers on paper for encryption without a common key: security of rings, size of threshold BFV.

    python benchmarks/lattice_estimates.py

Security is the cost of the primal attack (uSVP: Alkim, Ducas, Pöppelmann and Schwabe, USENIX
Security 2016, Section 6.3) in the cost model of the Homomorphic Encryption Standard, 8d·2^(0.292β +
16.4) for blocks of β in dimension d. It is one attack of several; no dual or hybrid one is looked
at. The sizes of threshold BFV are those that its noise leaves, without any implementation.
"""

from math import e, inf, log2, pi

# N, log2 q, and the standard deviations of secrets and errors.
RINGS = (
    *((1024, 29, 3.2, 3.2), (2048, 56, 3.2, 3.2), (4096, 62, 3.2, 3.2), (4096, 111, 3.2, 3.2)),
    *((1024, 27, 0.8165, 3.2), (2048, 54, 0.8165, 3.2), (4096, 109, 0.8165, 3.2)),
)
# The standard's bound for ternary secrets, and the largest error of a fresh ciphertext.
MOST_BITS, ERROR, SMUDGING = {4096: 109, 8192: 218, 16384: 438}, 21, 40


def primal_cost(degree: int, modulus_bits: float, secret: float, error: float) -> float:
    """log2 of the cost of the primal attack with the best number of samples."""
    best = inf
    for samples in range(degree // 2, 2 * degree + 1, 32):
        dimension = degree + samples + 1
        volume = (samples * modulus_bits + degree * log2(error / secret)) / dimension
        for block in range(60, 1200):
            root = log2((pi * block) ** (1 / block) * block / (2 * pi * e)) / (2 * (block - 1))
            if log2(block) / 2 + log2(error) <= (2 * block - dimension - 1) * root + volume:
                best = min(best, 0.292 * block + 16.4 + log2(8 * dimension))
                break
    return best


def threshold_bits(degree: int, sites: int, bits: int) -> tuple[int, float]:
    """How many quantised values share a slot of threshold BFV, and log2 of the modulus for them.

    A ciphertext under the sites' public key has errors of at most 21·(1 + N + N·K), since the key
    is a sum of K ternary ones; each site that opens adds 2^40 times the errors of the sum.
    """
    errors = sites * (ERROR * (1 + degree + degree * sites) + 0.5)
    room = log2(2 * errors * (1 + sites * 2.0**SMUDGING))
    digit = log2(2 * sites * (2 ** (bits - 1) - 1) + 1)
    digits = int((MOST_BITS[degree] - room) // digit)
    return digits, digits * digit + room


def main() -> None:
    """Print both."""
    for degree, modulus, secret, error in RINGS:
        cost = primal_cost(degree, modulus, secret, error)
        print(
            f"degree {degree}, q of {modulus} bits, secrets {secret}, errors {error}: 2^{cost:.1f}"
        )
    for sites in (10, 100):
        for degree in MOST_BITS:
            digits, modulus = threshold_bits(degree, sites, 8)
            print(
                f"threshold BFV, {sites} sites, degree {degree}: {digits} values a slot, "
                f"{modulus / digits:.1f} bits a value and polynomial, "
                f"{degree * modulus / 8e3:.0f} kB a polynomial"
            )


if __name__ == "__main__":
    main()
