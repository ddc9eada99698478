"""How an update is protected on its way, one file each; an object is its section of params.yaml."""

from typing import Annotated, get_args

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

# All of them, in the order in which they are named to a person.
PROTECTIONS: tuple[type[Protection], ...] = get_args(get_args(AnyProtection)[0])

__all__ = [
    "CKKS",
    "PROTECTIONS",
    "AnyProtection",
    "Cohort",
    "MaskedSums",
    "PackedBFV",
    "Plain",
    "Protection",
    "RLWESecAgg",
    "SecAggPlus",
]
