"""Segmentation data set families: one module each, of one shape."""

from federated.data.families.brain import BRAIN
from federated.data.families.family import CaseFiles, Family, Found
from federated.data.families.hippocampus import HIPPOCAMPUS
from federated.data.families.kidney import KIDNEY
from federated.data.families.retina import RETINA
from federated.data.families.skin import SKIN

FAMILIES = {family.name: family for family in (HIPPOCAMPUS, RETINA, SKIN, KIDNEY, BRAIN)}

__all__ = ["FAMILIES", "CaseFiles", "Family", "Found"]
