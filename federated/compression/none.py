"""No compression: every value of the update is sent."""

from typing import Literal

from federated.settings import Settings
from federated.update import CompressedUpdate, ModelUpdate, Vector


class NoCompression(Settings):
    """The identity."""

    name: Literal["none"] = "none"

    def compress(self, update: ModelUpdate) -> CompressedUpdate:
        """Keep all coordinates of the update."""
        return CompressedUpdate(
            update.site, update.round_number, update.cases, len(update.vector), update.vector
        )

    def decompress(self, values: Vector, length: int) -> Vector:
        """The dense vector of ``length`` values from the aggregated ones."""
        if len(values) != length:
            raise ValueError(f"{len(values)} values do not fill a vector of {length}")
        return values
