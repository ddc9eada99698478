"""Federated strategies, one file each; a strategy object is its section of params.yaml."""

from typing import Annotated

from pydantic import Field

from federated.strategies.central import Central
from federated.strategies.fedadam import FedAdam
from federated.strategies.fedavg import FedAvg
from federated.strategies.fedbn import FedBN
from federated.strategies.fednova import FedNova
from federated.strategies.fedprox import FedProx
from federated.strategies.fedyogi import FedYogi
from federated.strategies.local import Local
from federated.strategies.scaffold import Scaffold

AnyStrategy = Annotated[
    FedAvg | FedProx | FedBN | Scaffold | FedAdam | FedYogi | FedNova | Local | Central,
    Field(discriminator="name"),
]

__all__ = [
    "AnyStrategy",
    "Central",
    "FedAdam",
    "FedAvg",
    "FedBN",
    "FedNova",
    "FedProx",
    "FedYogi",
    "Local",
    "Scaffold",
]
