"""Segmentation data set families: one module each, of one shape, found by being here."""

from importlib import import_module
from pkgutil import iter_modules

from federated.data.folders.families.base import CaseFiles, Family, Found

FAMILIES: dict[str, Family] = {
    value.name: value
    for module in iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{module.name}")).values()
    if isinstance(value, Family)
}

__all__ = ["FAMILIES", "CaseFiles", "Family", "Found"]
