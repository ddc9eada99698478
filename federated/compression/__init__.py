"""Compression of updates, one file each; a compression object is its section of params.yaml."""

from federated.compression.none import NoCompression

AnyCompression = NoCompression

__all__ = ["AnyCompression", "NoCompression"]
