"""What a federated strategy decides, as four functions over explicit values."""

from collections.abc import Iterable, Mapping

import torch

from federated.settings import Settings
from federated.update import Arrays, Layout, Vector


class Strategy(Settings):
    """A strategy is its own section of params.yaml; the defaults here are those of FedAvg.

    State between rounds is passed in and returned, never kept in the object.
    """

    def start(self, weights: Vector) -> Vector:
        """The weights a site starts from, given the global ones."""
        return weights

    def add_gradient(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        anchor: Mapping[str, torch.Tensor],
    ) -> None:
        """Add the gradient of an extra loss term to ``.grad``, in place, after backward.

        ``anchor`` holds the weights the site started from, by name.
        """

    def shared(self, layout: Layout) -> tuple[str, ...]:
        """Names of the tensors that a site sends."""
        return tuple(name for name, _ in layout.entries)

    def server_step(
        self, weights: Vector, mean_update: Vector, state: Arrays
    ) -> tuple[Vector, Arrays]:
        """New global weights and server state from the weighted mean of the updates."""
        return weights + mean_update, state
