"""What differential privacy changes at a site: the interface, with no privacy as its defaults."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from federated.privacy.accounting import Accountant, Release, noise_multiplier_for
from federated.privacy.discrete_gaussian import NoisyGrid
from federated.privacy.noise import SecretRandom
from federated.settings.base import Settings, Unit
from federated.update import Scalars, Vector


class Privacy(Settings):
    """What makes releases private; the defaults here are those of no privacy.

    A privacy object is the section ``privacy`` of params.yaml.
    """

    # Whom the guarantee is for; None where there is no guarantee.
    unit: ClassVar[Unit | None] = None
    # Whether a site adds its noise to the quantised values that it sends instead of to its update.
    noise_in_sum: ClassVar[bool] = False

    def initial_clip(self) -> float | None:
        """The clipping norm of the first round, where all sites have the same one and it changes.

        It is ``None`` otherwise.
        """
        return None

    @property
    def scalar_names(self) -> frozenset[str]:
        """The names of the scalars that every site sends beside its update."""
        return frozenset()

    @property
    def allowed_missing(self) -> int:
        """How many selected sites may drop out, where only the sum has the whole noise."""
        return 0

    def grid(self, release: Release, selected: int, bits: int, length: int) -> NoisyGrid | None:
        """The grid to which sites round their updates, and on which they add their noise.

        It is ``None`` where they do not do so.

        Args:
            release: what each of the ``selected`` sites releases in a round.
            selected: how many sites are selected in a round.
            bits: the bits of a quantised value.
            length: how many values a site sends.

        Raises:
            ConsiliumError: there are too few bits for this much noise.
        """
        return None

    def refuse_too_little_noise(self, selected: int, responded: int) -> None:
        """Check, at a site, that it may help to open a sum of ``responded`` sites of ``selected``.

        Raises:
            ConsiliumError: more sites have dropped out than the guarantee allows.
        """

    def largest_scalar(self, release: Release) -> float:
        """The largest scalar, without a sign, that a site sends with such a release; 0 for none."""
        return 0.0

    def next_clip(self, clip: float, means: Scalars) -> float:
        """The clipping norm of the round after one with ``clip``.

        ``means`` are the means of the sites' scalars, by name.
        """
        return clip


class Private(Privacy):
    """A Gaussian mechanism at every site, with the settings that all such mechanisms have.

    Exactly one setting says how much noise there is: ``noise_multiplier`` (its standard deviation
    over ``clip``), ``epsilon`` (composed over all rounds) or ``epsilon_per_round``. ``noise`` is
    ``secret``, from the operating system and new in every release, or ``seeded`` from the
    experiment's seed, so that a simulation can be repeated: whoever knows the seed can then take
    the noise away again, and two runs of one seed share it. ``noise_schedule`` cuts the run into
    stretches of equal length and gives each a factor for that noise: (1.5, 1, 0.7) falls from more
    to less. With ``epsilon`` the noise is found for all stretches together.
    """

    clip: float = Field(gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    epsilon: Annotated[float, Field(gt=0)] | None = None
    epsilon_per_round: Annotated[float, Field(gt=0)] | None = None
    accountant: Accountant = "prv"
    noise: Literal["secret", "seeded"] = "secret"
    noise_schedule: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)

    # The name of the mechanism in the ledger.
    mechanism: ClassVar[str]

    @model_validator(mode="after")
    def _one_amount(self) -> "Private":
        amounts = (self.noise_multiplier, self.epsilon, self.epsilon_per_round)
        if sum(amount is not None for amount in amounts) != 1:
            raise ValueError("set one of noise_multiplier, epsilon and epsilon_per_round")
        if self.epsilon_per_round is not None and set(self.noise_schedule) != {1.0}:
            raise ValueError(
                "noise_schedule changes the noise from round to round, so it goes with epsilon or "
                "noise_multiplier and not with epsilon_per_round"
            )
        return self

    def factor(self, round_number: int, rounds: int) -> float:
        """The factor that a round, from 1 to ``rounds``, has for the planned noise."""
        return self.noise_schedule[(round_number - 1) * len(self.noise_schedule) // rounds]

    def of_round(self, planned: Release, round_number: int, rounds: int) -> Release:
        """What is released in a round, from 1 to ``rounds``."""
        noise = planned.noise_multiplier * self.factor(round_number, rounds)
        return replace(planned, noise_multiplier=noise)

    @abstractmethod
    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """The sampling rate in (0, 1] and the number of mechanisms in a site's round.

        Args:
            cases: the site's training cases.
            steps: its local steps in the round.
            batch_size: cases in a step.
        """

    def plan(self, cases: int, steps: int, batch_size: int, rounds: int) -> Release:
        """What a site releases in each of ``rounds`` rounds, before the schedule of the noise.

        :meth:`of_round` applies the schedule.

        Args:
            cases: the site's training cases.
            steps: its local steps in a round.
            batch_size: cases in a step.
            rounds: how many rounds the run has.

        Raises:
            ConsiliumError: the target cannot be reached.
        """
        rate, count = self.sampling(cases, steps, batch_size)
        noise = self.noise_multiplier
        if noise is None:
            target = self.epsilon or self.epsilon_per_round
            assert target is not None
            numbers = range(1, rounds + 1) if self.epsilon else [1]
            factors = Counter(self.factor(number, rounds) for number in numbers)
            releases = tuple(Release(f, rate, count * n) for f, n in sorted(factors.items()))
            noise = noise_multiplier_for(target, self.delta, releases, self.accountant)
        return Release(noise, rate, count)

    def gradients(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        release: Release,
        cases: Sequence[str],
        clip: float,
        random: SecretRandom,
    ) -> Any:
        """What computes the gradients of local training; ``None`` for the ordinary ones.

        Args:
            model: the network, which is trained with them.
            optimizer: the optimiser of that network.
            release: what the site releases in the round.
            cases: the identities of the site's training cases, in their order.
            clip: the clipping norm that the round begins with.
            random: what the noise and all draws about cases come from.
        """
        return None

    def protect_update(
        self, update: Vector, release: Release, clip: float, random: SecretRandom
    ) -> tuple[Vector, Scalars]:
        """What a site sends instead of its update, and its ``ModelUpdate.scalars``.

        Args:
            update: ``(parts * shared,)``; so is what replaces it.
            release: what the site releases in the round.
            clip: the clipping norm of the round.
            random: what the noise comes from.
        """
        return update, {}

    def update_noise(self, release: Release, clip: float) -> float:
        """The standard deviation of the noise in each value of an update, before its weight."""
        return 0.0

    def warnings(self, cases: int, sites: int) -> list[str]:
        """What a person should know of these settings at a site of ``cases`` training cases."""
        found = []
        units = cases if self.unit == "record" else sites
        if self.delta >= 1 / units:
            found.append(
                f"privacy.delta={self.delta:g} is not below 1/{units}, one over the number of "
                f"{self.unit}s: a mechanism may then publish a {self.unit} outright and keep its "
                "guarantee"
            )
        if self.noise == "seeded":
            found.append(
                "privacy.noise=seeded: the noise can be made again from the seed, and two runs of "
                "one seed share it, so the guarantee does not hold against those who know it; for "
                "simulations only"
            )
        return found
