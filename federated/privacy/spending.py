"""What is entered in a privacy ledger: what a site releases, and how much it may release."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from federated.privacy.accounting import NOISED_COUNTS, RDP_ONLY, UNACCOUNTED, Release
from federated.settings.base import Unit
from federated.settings.sections import Share

# An update that no mechanism makes private.
NO_MECHANISM = "none"
# Predictions or scores of cases, and pictures of them, as they are. Statistics and metrics over
# cases have no bound either.
EVALUATION = "evaluation in the clear"
PICTURES = "pictures in the clear"
# Statistics of test cases by subgroups, or of how far they change with images turned over.
FINAL = "evaluation in the clear, as statistics at the end"
FINAL_SUMMED = "evaluation in the clear, as sums over sites at the end"
# What is entered of an evaluation, by ``evaluation.share``. Entries of older versions are of
# predictions.
EVALUATIONS: Mapping[Share, str] = {
    "predictions": EVALUATION,
    "statistics": f"{EVALUATION}, as statistics",
    "metrics": f"{EVALUATION}, as metrics",
    "sums": f"{EVALUATION}, as sums over sites",
}
# Counts of training cases: a site's own as they are, exact sums over sites, or with noise.
STATISTICS = "statistics in the clear"
STATISTICS_SUMS = "statistics, as sums over sites"
IN_THE_CLEAR = frozenset({*EVALUATIONS.values(), PICTURES, FINAL, FINAL_SUMMED})
WITHOUT_BOUND = frozenset({NO_MECHANISM, UNACCOUNTED, STATISTICS, STATISTICS_SUMS}) | IN_THE_CLEAR
# This follows the name of a mechanism whose noise comes from the experiment's seed: everyone who
# takes part knows the seed, so that the noise protects from nobody.
SEEDED = ", with noise from the seed"
NO_RELEASE = Release(noise_multiplier=0.0, sampling_rate=1.0, steps=1)


@dataclass(frozen=True, slots=True)
class Spending:
    """One entry: a mechanism on some of a holder's records, in a round of a run.

    ``clip`` is the norm that one unit's contribution is clipped to. ``records`` names the set of
    records that were touched; ``None`` stands for every record of the holder.
    """

    mechanism: str
    unit: Unit
    noise_multiplier: float
    sampling_rate: float
    steps: int
    clip: float
    round_number: int
    run: str
    experiment: str
    site: str
    records: str | None = None

    @property
    def release(self) -> Release:
        """The release that accountants compose."""
        return Release(self.noise_multiplier, self.sampling_rate, self.steps)

    @property
    def trains(self) -> bool:
        """Whether the entry is of training, and not of cases that are evaluated."""
        return self.mechanism not in IN_THE_CLEAR


# Whether cases that were never trained on may be evaluated in the clear.
Evaluation = Literal["untrained", "refuse"]


@dataclass(frozen=True)
class Budget:
    """The most that may be spent of a holder's records, for one unit.

    ``records`` names the set of records that the budget is for; ``None`` stands for all that the
    holder has and will have. ``site`` is what a person called that set. An infinite ε lifts the
    budget.
    """

    unit: Unit
    epsilon: float
    delta: float
    records: str | None = None
    site: str | None = None
    evaluation: Evaluation = "untrained"


@dataclass(frozen=True)
class Counted:
    """An entry as it counts for a unit: what accountants compose, without its number of steps.

    ``rdp_only`` says that the noise multiplier holds for Rényi divergences alone.
    """

    noise_multiplier: float
    sampling_rate: float
    rdp_only: bool


@dataclass(frozen=True)
class Kind:
    """What entries have in common that count alike: everything in an entry but its steps."""

    mechanism: str
    unit: Unit
    noise_multiplier: float
    sampling_rate: float

    @staticmethod
    def of(spending: Spending) -> "Kind":
        """The kind of an entry."""
        return Kind(
            spending.mechanism, spending.unit, spending.noise_multiplier, spending.sampling_rate
        )

    def for_unit(self, unit: Unit, cases: int = 1) -> Counted | None:
        """How such an entry counts for ``unit``; ``None`` where it has no bound.

        A release at site level protects each record too: with one record exchanged, the clipped
        update moves by up to twice the clipping norm, so that half the noise multiplier counts,
        however many records are exchanged. A release at record level says nothing of a site as a
        whole.

        ``cases`` is how many records a patient has, all of them touched by the entry. A sum of
        clipped vectors then moves by up to so many times the clipping norm, with the probability 1
        − (1 − q)^cases that a step draws any of them: the sampled Gaussian mechanism with these two
        dominates the one at hand, in which fewer may be drawn (Ganesh 2024, arXiv 2401.10294, on
        mixtures of Gaussians, whose sensitivities are ordered stochastically).
        """
        noise, rate = self.noise_multiplier, self.sampling_rate
        if noise == 0 or self.mechanism in WITHOUT_BOUND or self.mechanism.endswith(SEEDED):
            return None
        if self.unit != unit:
            if unit == "site":
                return None
            noise /= 2
        elif unit == "record" and cases > 1:
            noise, rate = noise / cases, 1 - (1 - rate) ** cases
        return Counted(noise, rate, self.mechanism in (RDP_ONLY, NOISED_COUNTS))


def before_sites_bit(noise_multiplier: float, count_noise: float | None) -> float:
    """The true noise multiplier of an entry of ``site_level`` with ``adaptive`` of old versions.

    Those versions took a site's clip indicator to have sensitivity ½, and made the update's noise
    (z⁻² − (2σ_b)⁻²)^(−½), with z = ``noise_multiplier`` and σ_b = ``count_noise``; the pair of both
    has (z⁻² + ¾ σ_b⁻²)^(−½). Where σ_b is not known (``count_noise`` is ``None``) it may have been
    as little as z/2, the least that was accepted.
    """
    least = noise_multiplier / 2
    known = least if count_noise is None else max(count_noise, least)
    return 1 / sqrt(noise_multiplier**-2 + 0.75 * known**-2)
