"""FedAvg, then every site trains the model that came of it alone.

The baseline that personalisation is held to (Yu et al. 2020, "Salvaging Federated Learning by Local
Adaptation", Sec. 3.1): the last ``tuning_rounds`` rounds of a run are the site's own.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.strategies.base import OWN, RECORD, SiteStart, Strategy, Units
from federated.training.rule import LocalRule, LocalWork
from federated.update import Arrays, Vector


class FineTune(Strategy):
    """In a tuning round a site sends zeros, and the global model stays as it is."""

    name: Literal["finetune"] = "finetune"
    tuning_rounds: int = Field(default=1, ge=1)

    covered_by_privacy: ClassVar[Units] = RECORD

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The update, or zeros."""
        return (np.zeros_like(update) if self._tunes(start) else update), {}

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """The model, while it is tuned."""
        return {OWN: ended[-1]} if self._tunes(start) else {}

    def _tunes(self, start: SiteStart) -> bool:
        return start.round_number > start.rounds - self.tuning_rounds
