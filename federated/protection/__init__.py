"""How an update is protected on its way, one file each; an object is its section of params.yaml."""

from typing import Annotated

from pydantic import Field

from federated.protection.base import Cohort, Protection
from federated.protection.ckks import CKKS
from federated.protection.packed_bfv import PackedBFV
from federated.protection.plain import Plain
from federated.protection.rlwe_secagg import RLWESecAgg
from federated.protection.secagg_plus import MaskedSums, SecAggPlus

AnyProtection = Annotated[
    Plain | CKKS | PackedBFV | SecAggPlus | RLWESecAgg, Field(discriminator="name")
]

__all__ = [
    "CKKS",
    "AnyProtection",
    "Cohort",
    "MaskedSums",
    "PackedBFV",
    "Plain",
    "Protection",
    "RLWESecAgg",
    "SecAggPlus",
]
