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
    """A privacy is its own section of params.yaml."""

    # Whom a guarantee is for; None where there is none.
    unit: ClassVar[Unit | None] = None
    # Whether a site adds its noise to the quantised values that it sends instead of to its update.
    noise_in_sum: ClassVar[bool] = False

    def initial_clip(self) -> float | None:
        """The clipping norm of the first round, where all sites have the same and it changes."""
        return None

    @property
    def scalar_names(self) -> frozenset[str]:
        """The names of the scalars that every site sends beside its update."""
        return frozenset()

    @property
    def allowed_missing(self) -> int:
        """How many of the selected sites may drop out, where the sum alone has the whole noise."""
        return 0

    def grid(self, release: Release, selected: int, bits: int, length: int) -> NoisyGrid | None:
        """The grid that sites round their updates to, and add their noise on, where they do so.

        Args:
            release: what each of the ``selected`` sites releases in a round.
            bits: of a quantised value.
            length: how many values a site sends.

        Raises:
            ConsiliumError: there are too few bits for this much noise.
        """
        return None

    def refuse_too_little_noise(self, selected: int, responded: int) -> None:
        """At a site, before it helps to open a sum of ``responded`` of the ``selected`` sites.

        Raises:
            ConsiliumError: more have dropped out than the guarantee allows.
        """

    def next_clip(self, clip: float, means: Scalars) -> float:
        """That of the round after one with ``clip``; ``means`` are those of the sites' scalars."""
        return clip


class Private(Privacy):
    """A Gaussian mechanism at every site, with the settings that all of them have.

    How much noise is told by one of ``noise_multiplier``, its standard deviation over ``clip``,
    ``epsilon``, composed over all rounds, and ``epsilon_per_round``. ``noise`` is
    ``secret``, from the operating system and new in every release, or ``seeded`` from the
    experiment's seed, so that a simulation can be repeated: whoever knows the seed can then take it
    away again, and two runs of one seed share it. ``noise_schedule`` cuts the run into
    stretches of equal length, each with so many times that noise: (1.5, 1, 0.7) falls from more to
    less. With ``epsilon`` the noise is found for all stretches together.
    """

    clip: float = Field(gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise_multiplier: Annotated[float, Field(gt=0)] | None = None
    epsilon: Annotated[float, Field(gt=0)] | None = None
    epsilon_per_round: Annotated[float, Field(gt=0)] | None = None
    accountant: Accountant = "prv"
    noise: Literal["secret", "seeded"] = "secret"
    noise_schedule: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)

    # As it stands in the ledger.
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
        """How many times the planned noise a round from 1 to ``rounds`` has."""
        return self.noise_schedule[(round_number - 1) * len(self.noise_schedule) // rounds]

    def of_round(self, planned: Release, round_number: int, rounds: int) -> Release:
        """What is released in a round."""
        noise = planned.noise_multiplier * self.factor(round_number, rounds)
        return replace(planned, noise_multiplier=noise)

    @abstractmethod
    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """Sampling rate and number of mechanisms in a round of ``steps`` local steps at a site."""

    def plan(self, cases: int, steps: int, batch_size: int, rounds: int) -> Release:
        """What a site of ``cases`` training cases releases in each of ``rounds`` rounds.

        Before the schedule: :meth:`of_round` applies it.

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
            model: is trained with them.
            optimizer: of that model.
            release: what the site releases in the round.
            cases: the identities of the site's training cases, in their order.
            clip: the clipping norm that the round begins with.
            random: where the noise and all draws about cases come from.
        """
        return None

    def protect_update(
        self, update: Vector, release: Release, clip: float, random: SecretRandom
    ) -> tuple[Vector, Scalars]:
        """What a site sends instead of its update, and ``ModelUpdate.scalars``."""
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
