"""What all sites know before a round with no message about it: it follows from the state."""

import numpy as np
from torch import nn

from federated.compression import Agreed
from federated.configuration.experiment import Experiment
from federated.run.folder import RunFolder
from federated.stages.private_release import largest_noise, noisy_grid
from federated.training.optimization import learning_rate
from federated.update import Flags, Layout, RoundState


def sent_groups(experiment: Experiment, layout: Layout) -> tuple[int, ...]:
    """The lengths of the tensors in the vector that sites send: the shared ones, once or more."""
    return layout.shared_groups * len(experiment.strategy.sent_sizes(0.0))


def sent_length(experiment: Experiment, layout: Layout) -> int:
    """How many numbers a site sends."""
    return experiment.compression.count(sum(sent_groups(experiment, layout)))


def agreed(folder: RunFolder, state: RoundState) -> Agreed:
    """What every site knows before the round that follows ``state``."""
    experiment = folder.experiment()
    groups = sent_groups(experiment, state.layout)
    grid = noisy_grid(folder, sent_length(experiment, state.layout))
    number = state.round_number + 1
    return Agreed(
        experiment.seed,
        number,
        groups,
        state.agreed,
        grid.step if grid else None,
        # Noise does not fall with the learning rate.
        1.0 if largest_noise(folder) else _next_rate(experiment, number),
    )


def _next_rate(experiment: Experiment, number: int) -> float:
    """The learning rate of the round after ``number`` over that of ``number``, by the schedule."""
    now, after = (
        learning_rate(experiment.training, n, experiment.rounds) for n in (number, number + 1)
    )
    return after / now if number < experiment.rounds else 1.0


def trained_values(folder: RunFolder, state: RoundState, model: nn.Module) -> Flags | None:
    """Which of the model's values local training may move; ``None`` where it may move all.

    Those that are sent, personal ones, and statistics, which training does not choose.
    """
    positions = folder.experiment().compression.trained(agreed(folder, state))
    if positions is None:
        return None
    layout = state.layout
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
