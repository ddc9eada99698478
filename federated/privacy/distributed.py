"""Site-level differential privacy of the sum: every site adds a share of the noise.

The distributed discrete Gaussian (Kairouz, Liu and Steinke 2021, arXiv 2102.06387) around one
round: of K sites selected, each clips its weighted update to C/K, rounds it to a grid and adds
integer noise; the sum carries noise of standard deviation z·C/K. Of a mean over K sites that is as
much as each of them adds for itself under ``site_level`` divided by K instead of √K.

Guarantee: (ε, δ) for a site as the unit, where neighbouring federations differ in one site's update
being zero, against everyone who sees the sums and at most ``missing`` shares of their noise: a site
that drops out has added none, and a site that looks at the sum, or tells the coordinator its noise,
takes its own away. It rests on the protection, which has to keep single updates, with their small
shares of the noise, from whoever the guarantee is against: so under SecAgg+ it holds against the
coordinator with as many sites as both ``missing`` and the protection's share of corrupted sites
allow, whichever are fewer, and under encryption against the coordinator alone. Sites are taken to
add their noise as they should, and those who open sums to open one of an attempt at a round.
Weights and validation and test cases are not covered.

What is released are the noised values. They are made once in an attempt at a round: compressed
again, they are the same, so that no second sum has the same update with other noise for the price
of one. A round that begins anew may have other sites in its sum, and from two sums with the same
values those of a single site would follow, with its share of the noise alone; so it has noise
of its own, and an entry of its own.
"""

from math import sqrt
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from federated.errors import TooFewSitesError
from federated.privacy.accounting import RDP_ONLY, Release
from federated.privacy.base import Private
from federated.privacy.discrete_gaussian import NoisyGrid, fit_grid
from federated.settings.base import Unit


class DistributedSiteLevel(Private):
    """Noise of which every site adds a share; only the sum has all of it.

    ``clip`` is C. Of the sites selected, ``missing`` may drop out or know their own noise.
    """

    name: Literal["site_level_distributed"] = "site_level_distributed"
    missing: Annotated[int, Field(ge=0)] = 1
    # The guarantee is one of Rényi divergences, which PRV cannot use.
    accountant: Literal["rdp"] = "rdp"
    # The grid is the same in all rounds.
    noise_schedule: tuple[Literal[1], ...] = (1,)

    unit: ClassVar[Unit | None] = "site"
    mechanism: ClassVar[str] = RDP_ONLY
    noise_in_sum: ClassVar[bool] = True

    @property
    def allowed_missing(self) -> int:
        """The setting ``missing``."""
        return self.missing

    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """One mechanism in a round, on all that the site has."""
        return 1.0, 1

    def grid(self, release: Release, selected: int, bits: int, length: int) -> NoisyGrid:
        """The grid on which a site's ``length`` values are quantised to ``bits`` bits, with noise.

        Raises:
            ConsiliumError: there are too few bits for this much noise.
        """
        clip, noisy = self.clip / selected, selected - self.missing
        return fit_grid(clip, release.noise_multiplier, bits, length, noisy)

    def refuse_too_little_noise(self, selected: int, responded: int) -> None:
        """Check, at a site, that it may help to open a sum of ``responded`` sites of ``selected``.

        Raises:
            ConsiliumError: more sites have dropped out than the guarantee allows.
        """
        if selected - responded > self.missing:
            raise TooFewSitesError(
                f"The sum of {responded} of {selected} sites has less noise than its privacy "
                f"needs, so no site helps to open it: privacy.missing={self.missing} may drop out. "
                "Resume when they are back; for the next run, privacy.missing="
                f"{selected - responded} makes every site's share of the noise "
                f"{self._larger(selected, responded):.2f} times as large."
            )

    def _larger(self, selected: int, responded: int) -> float:
        return sqrt((selected - self.missing) / max(1, responded))
