"""Federated strategies, one file each; a strategy object is its section of params.yaml."""

from typing import Annotated

from pydantic import Field

from federated.strategies.fedavg import FedAvg
from federated.strategies.fedprox import FedProx

AnyStrategy = Annotated[FedAvg | FedProx, Field(discriminator="name")]

__all__ = ["AnyStrategy", "FedAvg", "FedProx"]
