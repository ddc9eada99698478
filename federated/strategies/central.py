"""Centralised training: all sites' cases in one place, which no federation may do.

It is the reference that federated strategies are measured against, where the data are at hand
anyway, as public sets and phantoms are. The optimiser starts afresh each round, as at a site.
"""

from typing import ClassVar, Literal

from federated.strategies.base import Strategy


class Central(Strategy):
    """One model that is trained on the pooled training cases and evaluated at every site."""

    name: Literal["central"] = "central"
    pools_cases: ClassVar[bool] = True
    sends_updates: ClassVar[bool] = False
