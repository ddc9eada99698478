"""What an ε of differential privacy bounds, in numbers that a person can hold on to.

All of it follows from the definition alone: a mechanism is (ε, δ)-differentially private if for
every set S of outcomes and every two data sets that differ in one unit
P(M(D) ∈ S) ≤ e^ε · P(M(D') ∈ S) + δ (Dwork and Roth 2014, Definition 2.4). Seen as a test of
whether the unit was there, its power is at most e^ε times its false alarms plus δ (Wasserman and
Zhou 2010, Theorem 2.4; Kairouz, Oh and Viswanath 2015).
"""

from dataclasses import dataclass
from math import exp

# Beyond it e^ε is written as more than a thousand million.
LARGEST = 20.7


@dataclass(frozen=True)
class Meaning:
    """What an ε and a δ let an attacker do at most.

    Attributes:
        odds: the factor by which odds may rise, but for what δ allows.
        recognised: of units that were there, the share that a test finds which wrongly accuses
            1 % of those that were not.
        guess: how often a guess is right, of a unit that was there with a probability of one half.
    """

    odds: float
    recognised: float
    guess: float


def power(epsilon: float, delta: float, false_alarms: float) -> float:
    """The largest power in [0, 1] of a test with so many false alarms, in [0, 1]."""
    if epsilon > LARGEST:
        return 1.0 if false_alarms else min(delta, 1.0)
    grown = exp(epsilon)
    # The second bound is the first of the test that says the opposite.
    return min(grown * false_alarms + delta, 1 - (1 - delta - false_alarms) / grown, 1.0)


def meaning_of(epsilon: float, delta: float) -> Meaning:
    """What a guarantee bounds.

    The best guess has as many false alarms as misses: where both bounds of :func:`power` meet, each
    is (1 − δ)/(1 + e^ε).
    """
    odds = exp(min(epsilon, LARGEST))
    guess = 1 - (1 - delta) / (1 + odds)
    return Meaning(odds, power(epsilon, delta, 0.01), guess)


def grade(epsilon: float) -> str:
    """How strong a guarantee is, by the tiers of Ponomareva et al. 2023 ("How to DP-fy ML")."""
    if epsilon <= 1:
        return "a strong guarantee"
    if epsilon <= 10:
        return "a moderate guarantee, of a size that is common in practice"
    return "little or no guarantee by itself"
