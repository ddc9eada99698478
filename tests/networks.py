"""Networks by their name and settings."""

from typing import Any, Literal

from pydantic import TypeAdapter
from torch import nn

from federated.settings.networks import NETWORKS, AnyNetwork

CLASSIFIERS = [n.model_fields["name"].default for n in NETWORKS if not n.segments]
ADAPTER: TypeAdapter[AnyNetwork] = TypeAdapter(AnyNetwork)


def build_model(
    name: str, *, channels: int, classes: int, dims: Literal[2, 3], seed: int = 0, **settings: Any
) -> nn.Module:
    """A network with random weights, as an experiment's."""
    network = ADAPTER.validate_python({"name": name, **settings})
    return network.build(channels, classes, dims, seed)
