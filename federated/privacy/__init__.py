"""Differential privacy, one file a mechanism; an object is its settings section."""

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
