"""Centralised training: all sites' cases in one place, which no federation may do.

The reference that federated strategies are measured against, where the data are at hand anyway:
public sets, phantoms. The optimiser starts afresh each round, as at a site.
"""

from typing import ClassVar, Literal

from federated.strategies.base import Strategy


class Central(Strategy):
    """One model trained on the pooled training cases, evaluated at every site."""

    name: Literal["central"] = "central"
    pools_cases: ClassVar[bool] = True
