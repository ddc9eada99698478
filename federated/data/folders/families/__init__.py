"""Segmentation data set families: one module for each, all alike, found by being in this folder."""

from importlib import import_module
from pkgutil import iter_modules

from federated.data.folders.families.base import CaseFiles, Family, Listing


def _found() -> dict[str, Family]:
    families: dict[str, Family] = {}
    for module in iter_modules(__path__):
        for value in vars(import_module(f"{__name__}.{module.name}")).values():
            if not isinstance(value, Family):
                continue
            if families.setdefault(value.name, value) is not value:
                raise ValueError(f"two families are named {value.name}")
    return families


FAMILIES = _found()

__all__ = ["FAMILIES", "CaseFiles", "Family", "Listing"]
