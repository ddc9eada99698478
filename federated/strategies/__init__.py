"""Federated strategies, one file each; a strategy object is its section of params.yaml."""

from typing import Annotated, get_args

from pydantic import Field

from federated.strategies.apfl import APFL
from federated.strategies.base import Strategy
from federated.strategies.central import Central
from federated.strategies.ditto import Ditto
from federated.strategies.fedadam import FedAdam
from federated.strategies.fedavg import FedAvg
from federated.strategies.fedavgm import FedAvgM
from federated.strategies.fedbn import FedBN
from federated.strategies.fednova import FedNova
from federated.strategies.fedper import FedPer
from federated.strategies.fedprox import FedProx
from federated.strategies.fedrep import FedRep
from federated.strategies.fedyogi import FedYogi
from federated.strategies.finetune import FineTune
from federated.strategies.local import Local
from federated.strategies.resfim.strategy import ResFIM
from federated.strategies.scaffold import Scaffold

AnyStrategy = Annotated[
    FedAvg
    | FedAvgM
    | FedProx
    | FedBN
    | Scaffold
    | FedAdam
    | FedYogi
    | FedNova
    | FedPer
    | FedRep
    | Ditto
    | APFL
    | FineTune
    | ResFIM
    | Local
    | Central,
    Field(discriminator="name"),
]

# All of them, in the order in which they are named to a person.
STRATEGIES: tuple[type[Strategy], ...] = get_args(get_args(AnyStrategy)[0])

__all__ = [
    "APFL",
    "STRATEGIES",
    "AnyStrategy",
    "Central",
    "Ditto",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBN",
    "FedNova",
    "FedPer",
    "FedProx",
    "FedRep",
    "FedYogi",
    "FineTune",
    "Local",
    "ResFIM",
    "Scaffold",
]
