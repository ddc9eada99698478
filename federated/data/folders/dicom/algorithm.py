"""Which model has made a mask."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Algorithm:
    """A model by its name and its version, those in the registry, or what stands in their place."""

    name: str
    version: str
