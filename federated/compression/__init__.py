"""Compression of updates, one file each; a compression object is its section of params.yaml."""

from typing import Annotated

from pydantic import Field

from federated.compression.compression import Agreed, Compression
from federated.compression.none import NoCompression
from federated.compression.shared_mask import SharedMask
from federated.compression.top_k import TopK

AnyCompression = Annotated[NoCompression | TopK | SharedMask, Field(discriminator="name")]

__all__ = ["Agreed", "AnyCompression", "Compression", "NoCompression", "SharedMask", "TopK"]
