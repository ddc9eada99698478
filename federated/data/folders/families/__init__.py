"""Segmentation data set families: one module each, of one shape."""

from federated.data.folders.families.base import CaseFiles, Family, Found
from federated.data.folders.families.brain import BRAIN
from federated.data.folders.families.hippocampus import HIPPOCAMPUS
from federated.data.folders.families.kidney import KIDNEY
from federated.data.folders.families.retina import RETINA
from federated.data.folders.families.skin import SKIN

FAMILIES = {family.name: family for family in (HIPPOCAMPUS, RETINA, SKIN, KIDNEY, BRAIN)}

__all__ = ["FAMILIES", "CaseFiles", "Family", "Found"]
