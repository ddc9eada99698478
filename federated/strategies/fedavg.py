"""Federated averaging.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data",
Algorithm 1: w_{t+1} = Σ_k (n_k / n) w_k, written here as w_t + Σ_k (n_k / n) Δ_k.
"""

from typing import ClassVar, Literal

from federated.strategies.base import RECORD_AND_SITE, Strategy, Units


class FedAvg(Strategy):
    """Plain weighted averaging of what the sites trained."""

    name: Literal["fedavg"] = "fedavg"

    covered_by_privacy: ClassVar[Units] = RECORD_AND_SITE
    keeps_nothing: ClassVar[bool] = True
