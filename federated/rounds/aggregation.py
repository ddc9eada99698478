"""The state that a round starts from: the first state, and the next one from a round's sum."""

from dataclasses import dataclass

from torch import nn

from federated.rounds.context import NOISE_ROOM, RoundContext, RunContext
from federated.rounds.plausible import plausible, refuse_diverged
from federated.strategies.base import Participation, Server
from federated.training.loop import has_batch_norm
from federated.training.optimization import expected_change, local_work
from federated.update import Arrays, Doubles, Layout, RoundState, Scalars


def first_state(run: RunContext, model: nn.Module) -> tuple[RoundState, Arrays]:
    """The state that round 1 starts from, with the model's weights, and what the server keeps.

    Returns:
        The state with round number 0, and the arrays that the server keeps to itself.

    Raises:
        ConsiliumError: there can be no such round, as with a grid that has too few bits for its
            noise.
    """
    experiment, training = run.experiment, run.experiment.training
    layout = Layout.of(model, experiment.strategy.personal(model))
    weights = layout.flatten(model)
    server = experiment.strategy.open_server(weights[layout.shared])
    batch_norm = has_batch_norm(model)
    steps = (
        local_work(run.counts.cases(site, "train"), training, batch_norm).steps
        for site in run.sites
    )
    change = expected_change(training, max(steps)) + NOISE_ROOM * run.largest_noise
    tensors = len(layout.shared_groups)
    expected = [size for size in experiment.strategy.sent_sizes(change) for _ in range(tensors)]
    begun, clip = experiment.compression.open(expected), experiment.privacy.initial_clip()
    state = RoundState(0, weights, layout, server.broadcast, begun, clip)
    _ = RoundContext(run, state).compression_context
    return state, server.memory


@dataclass(frozen=True)
class OpenedSum:
    """What sites have sent in all, in the clear: ``numbers`` ``(length,)``, and what goes with it.

    ``weight`` is Σ n_k / Σn of those in the sum, and ``scalars`` are summed beside the update.
    """

    numbers: Doubles
    weight: float
    scalars: Scalars


def next_state(
    context: RoundContext,
    memory: Arrays,
    total: OpenedSum,
    who: Participation,
    largest_weight: float,
) -> tuple[RoundState, Arrays]:
    """The state after a round, and the arrays that the server keeps to itself.

    Args:
        context: the round.
        memory: what the server kept to itself from the round before.
        total: the sum of what the sites sent.
        who: the sites whose payloads are in the sum, with their weights and their work.
        largest_weight: the largest value of the run's first model, without a sign.

    Raises:
        ImplausibleError: the sum is none of such updates.
        ConsiliumError: the new weights are no numbers, or huge.
    """
    experiment, state = context.experiment, context.state
    mean, learned = experiment.compression.expand(
        total.numbers, total.weight, context.compression_context
    )
    bounds, what = (
        plausible(context.run, largest_weight),
        f"The sum of round {context.round_number}",
    )
    # The mean, which is of the values themselves where a sum is of quantised ones.
    bounds.refuse(mean, 1.0, {}, what)
    bounds.refuse(mean[:0], total.weight, total.scalars, what)
    layout = state.layout
    before = Server(state.weights[layout.shared], state.broadcast, memory)
    after = experiment.strategy.server_step(before, mean, who)
    weights = state.weights.copy()
    weights[layout.shared] = after.weights
    refuse_diverged(after.weights, bounds, context.round_number)
    clip = state.clip
    if clip is not None:
        means = {name: value / total.weight for name, value in total.scalars.items()}
        clip = experiment.privacy.next_clip(clip, means)
    number = context.round_number
    return RoundState(number, weights, layout, after.broadcast, learned, clip), after.memory
