"""What everyone knows of a run and of a round before it begins, as one value.

A stage reads it once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from torch import nn

from federated.compression import CompressionContext
from federated.configuration.experiment import Experiment
from federated.data.partition import CaseCounts
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.privacy.discrete_gaussian import NoisyGrid
from federated.rounds.participation import participation, select_sites, site_weights
from federated.strategies.base import Participation
from federated.training.optimization import learning_rate
from federated.update import Flags, Layout, RoundState

# What a run is for: a model, or counts of the sites' cases.
Purpose = Literal["training", "statistics"]

# From the start, a range of quantisation holds this many standard deviations of privacy noise.
NOISE_ROOM = 4.0


def sent_groups(experiment: Experiment, layout: Layout) -> tuple[int, ...]:
    """The lengths of the tensors in the vector that sites send ``(parts * shared,)``, in order.

    They are those of the shared tensors, once for each part that the strategy sends.
    """
    return layout.shared_groups * len(experiment.strategy.sent_sizes(0.0))


def sent_length(experiment: Experiment, layout: Layout) -> int:
    """How many numbers a site sends; with ``top_k`` and ``ema`` this is only about as many."""
    return experiment.compression.count(sum(sent_groups(experiment, layout)))


def sum_length(experiment: Experiment, layout: Layout) -> int:
    """How many numbers a round's sum has.

    They are as many as a site sends where all sites send the same positions, and otherwise the
    whole vector's.
    """
    if experiment.compression.same_positions:
        return sent_length(experiment, layout)
    return sum(sent_groups(experiment, layout))


@dataclass(frozen=True)
class RunContext:
    """What stays the same in all rounds of a run.

    Args:
        run_id: the run's name.
        experiment: its resolved configuration.
        counts: how many cases each site has.
        sites: the sites that take part, in order.
        planned: for each site, what it releases in a round before the schedule of the noise is
            applied; empty without privacy.
        purpose: whether a model is trained, or cases are counted.
    """

    run_id: str
    experiment: Experiment
    counts: CaseCounts
    sites: tuple[str, ...]
    planned: Mapping[str, Release]
    purpose: Purpose = "training"

    def selected(self, round_number: int) -> list[str]:
        """The sites that are selected in a round, in order."""
        return select_sites(self.experiment, self.sites, round_number)

    def weights(self, round_number: int) -> dict[str, float]:
        """The weight n_k / Σn of each site that is selected in a round."""
        return site_weights(self.counts, self.selected(round_number))

    def participation(self, responded: Sequence[str]) -> Participation:
        """The weights and the work of the sites that responded, and their share of all cases."""
        return participation(self.experiment, self.counts, self.sites, responded)

    def release(self, site: str, round_number: int) -> Release:
        """What a private site releases in a round, by its plan and the schedule of the noise."""
        privacy = self.experiment.privacy
        assert isinstance(privacy, Private)
        return privacy.of_round(self.planned[site], round_number, self.experiment.rounds)

    @property
    def largest_noise(self) -> float:
        """The largest standard deviation of the noise in a value of any site's update.

        It is 0 without privacy.
        """
        privacy = self.experiment.privacy
        if not isinstance(privacy, Private):
            return 0.0
        noises = (privacy.update_noise(self.planned[site], privacy.clip) for site in self.sites)
        return max(noises) * max(privacy.noise_schedule)

    def grid(self, layout: Layout) -> NoisyGrid | None:
        """The grid to which sites round what they send, and on which they add their noise.

        It is ``None`` where a privacy does not do so.

        Raises:
            ConsiliumError: there are too few bits for this much noise.
        """
        privacy, bits = self.experiment.privacy, self.experiment.compression.bits
        if not privacy.noise_in_sum:
            return None
        # Without bits there is no such privacy: the configuration refuses it.
        assert bits is not None
        selected = self.experiment.sites.selected_of(len(self.sites))
        length = sent_length(self.experiment, layout)
        return privacy.grid(self.planned[self.sites[0]], selected, bits, length)

    @property
    def is_private(self) -> bool:
        """Whether a site tells of its training cases with noise alone.

        That is so of a training with privacy, and of statistics with noise. Times, memory and
        errors of stages follow from cases too, and are not told then.
        """
        noised = self.experiment.statistics.epsilon is not None
        return self.experiment.privacy.unit is not None or (self.purpose == "statistics" and noised)

    @property
    def tells_losses(self) -> bool:
        """Whether a site tells the mean loss of its training.

        By a model that the coordinator chooses it can be any sum over the site's training cases, as
        how many it has of a class. So it is told where the coordinator has the site's update
        anyway, and not where that is hidden in a sum or is private.
        """
        hidden = self.experiment.protection.stated("hides_updates_from")
        return self.experiment.privacy.unit is None and hidden == frozenset()

    def refuse_too_little_noise(self, responded: int) -> None:
        """Check, at a site, that it may help to open a sum of ``responded`` sites.

        Raises:
            ConsiliumError: more sites have dropped out than the site's privacy allows.
        """
        selected = self.experiment.sites.selected_of(len(self.sites))
        self.experiment.privacy.refuse_too_little_noise(selected, responded)


@dataclass(frozen=True)
class RoundContext:
    """A round before it begins: its run, and the ``state`` that it starts from."""

    run: RunContext
    state: RoundState

    @property
    def experiment(self) -> Experiment:
        """The run's configuration."""
        return self.run.experiment

    @property
    def round_number(self) -> int:
        """The round's number, from 1."""
        return self.state.round_number + 1

    @cached_property
    def grid(self) -> NoisyGrid | None:
        """The grid of the round's sums; see :meth:`RunContext.grid`."""
        return self.run.grid(self.state.layout)

    @property
    def sent_groups(self) -> tuple[int, ...]:
        """The lengths of the tensors in the vector that sites send, in order."""
        return sent_groups(self.experiment, self.state.layout)

    @property
    def sum_length(self) -> int:
        """How many numbers the round's sum has."""
        return sum_length(self.experiment, self.state.layout)

    @cached_property
    def compression_context(self) -> CompressionContext:
        """What a compression is told; it follows from the state, without any message."""
        return CompressionContext(
            self.experiment.seed,
            self.round_number,
            self.sent_groups,
            self.state.compression,
            self.grid.step if self.grid else None,
            # Noise does not fall with the learning rate.
            1.0 if self.run.largest_noise else self._next_rate,
        )

    @property
    def _next_rate(self) -> float:
        """The learning rate of the next round over that of this one, by the schedule."""
        training, rounds = self.experiment.training, self.experiment.rounds
        number = self.round_number
        now, after = (learning_rate(training, n, rounds) for n in (number, number + 1))
        return after / now if number < rounds else 1.0

    def trained_values(self, model: nn.Module) -> Flags | None:
        """Which of the model's values ``(size,)`` local training may move; ``None`` for all.

        These are the values that are sent, personal ones, and statistics, which training does not
        choose.
        """
        positions = self.experiment.compression.trained(self.compression_context)
        if positions is None:
            return None
        layout = self.state.layout
        shared = np.zeros(int(layout.shared.sum()), bool)
        # What a strategy sends beside the update follows it.
        shared[positions[positions < len(shared)]] = True
        result = np.ones(layout.size, bool)
        result[layout.shared] = shared
        parameters = {name for name, _ in model.named_parameters()}
        for name, part in layout.split(result).items():
            if name not in parameters:
                part[...] = True
        return result
