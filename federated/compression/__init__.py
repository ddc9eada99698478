"""Compression of updates, one file each; a compression object is its section of params.yaml."""

from typing import Annotated, get_args

from pydantic import Field

from federated.compression.base import Compression, CompressionContext
from federated.compression.none import NoCompression
from federated.compression.shared_mask import SharedMask
from federated.compression.top_k import TopK

AnyCompression = Annotated[NoCompression | TopK | SharedMask, Field(discriminator="name")]

# All of them, in the order in which they are named to a person.
COMPRESSIONS: tuple[type[Compression], ...] = get_args(get_args(AnyCompression)[0])

__all__ = [
    "COMPRESSIONS",
    "AnyCompression",
    "Compression",
    "CompressionContext",
    "NoCompression",
    "SharedMask",
    "TopK",
]
