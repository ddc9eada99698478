"""What no site sends that has trained: bounds of what an update and its scalars can be.

An update that is far from all that training gives makes a model that predicts no numbers, and a run
whose sites can go on with nothing. The bounds here are wide, a thousand times what a round of
training is expected to change, so that nothing is refused that a site could have meant; they keep a
round that one site spoils from being the run's last. **They are no defence against poisoning:** an
update within them is a model like any other.
"""

from dataclasses import dataclass

import numpy as np

from federated.errors import ConsiliumError
from federated.rounds.context import NOISE_ROOM, RunContext
from federated.training.optimization import expected_change, local_work
from federated.update import Doubles, Numbers, Scalars, Vector

# How many times the largest of what a value is expected to change by, of 1 and of the first model's
# values.
MOST_TIMES = 1000.0


class ImplausibleError(ConsiliumError):
    """Numbers that no site has that follows the protocol."""


@dataclass(frozen=True)
class Plausible:
    """The largest numbers, without a sign, that a site's update and its scalars can have.

    Attributes:
        change: of a value of an update, before it is weighted.
        scalar: of a scalar that is summed beside it, before it is weighted.
    """

    change: float
    scalar: float

    def refuse(
        self, numbers: Doubles | Numbers, weight: float, scalars: Scalars, what: str
    ) -> None:
        """Refuse what is weighted by ``weight`` and beyond the bounds.

        Args:
            numbers: of an update, or a sum of such, ``(n,)``.
            weight: its share of the cases, in (0, 1].
            scalars: summed beside it.
            what: the message begins with it.

        Raises:
            ImplausibleError: it is, or not finite.
        """
        # Without a copy of as many numbers as a model has.
        ends = float(numbers.max(initial=0)), -float(numbers.min(initial=0))
        largest = float(np.max(ends)) / weight
        beside = max((abs(value) for value in scalars.values()), default=0.0) / weight
        for found, most, name in (
            (largest, self.change, "a value"),
            (beside, self.scalar, "a scalar"),
        ):
            # NaN is in no range.
            if not found <= most:
                raise ImplausibleError(
                    f"{what} has {name} of {found:.3g}, and no training gives more than {most:.3g} "
                    "in a round. If sites are honest, training diverged: lower training.lr."
                )


def plausible(run: RunContext, largest_weight: float) -> Plausible:
    """The bounds of a run whose first model has no value larger than ``largest_weight``."""
    experiment, training = run.experiment, run.experiment.training
    cases = (run.counts.cases(site, "train") for site in run.sites)
    steps = max(local_work(count, training, batch_norm=False).steps for count in cases)
    change = expected_change(training, steps) + NOISE_ROOM * run.largest_noise
    parts = experiment.strategy.sent_sizes(change)
    scalar = max(
        (experiment.privacy.largest_scalar(release) for release in run.planned.values()), default=0
    )
    return Plausible(MOST_TIMES * max(1.0, largest_weight, *parts), float(scalar))


def refuse_diverged(weights: Vector, bounds: Plausible, round_number: int) -> None:
    """Refuse a model's new weights that the server has made of a plausible update.

    Raises:
        ConsiliumError: they are not finite, or as large as no server makes them that learns.
    """
    if not np.abs(weights).max(initial=0.0) <= bounds.change * MOST_TIMES**3:
        raise ConsiliumError(
            f"The model diverged in round {round_number}, of updates that are none too large: its "
            "weights are no numbers, or huge. Lower strategy.server_lr where the strategy has one, "
            "or training.lr."
        )
