"""Differential privacy, one file for each mechanism; an object is its section of params.yaml."""

from typing import Annotated

from pydantic import Field

from federated.privacy.base import Privacy, Private
from federated.privacy.distributed import DistributedSiteLevel
from federated.privacy.dp_sgd import DPSGD
from federated.privacy.none import NoPrivacy
from federated.privacy.percentile_laplace import PercentileLaplace
from federated.privacy.site_level import SiteLevel

AnyPrivacy = Annotated[
    NoPrivacy | DPSGD | SiteLevel | DistributedSiteLevel | PercentileLaplace,
    Field(discriminator="name"),
]

__all__ = [
    "DPSGD",
    "AnyPrivacy",
    "DistributedSiteLevel",
    "NoPrivacy",
    "PercentileLaplace",
    "Privacy",
    "Private",
    "SiteLevel",
]
