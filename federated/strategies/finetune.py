"""Fine-tuning: after FedAvg, every site goes on training the common model on its own.

It is the baseline that personalisation is compared with (Yu et al. 2020, "Salvaging Federated
Learning by Local Adaptation", Sec. 3.1): in the last ``tuning_rounds`` rounds of a run each site
trains for itself.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.strategies.base import OWN, RECORD, SiteStart, Strategy, Units
from federated.training.rule import LocalRule, LocalWork
from federated.update import Arrays, Vector


class FineTune(Strategy):
    """FedAvg, where sites send zeros in the last rounds, and the global model stays as it is then.

    There are ``tuning_rounds`` of these.
    """

    name: Literal["finetune"] = "finetune"
    tuning_rounds: int = Field(default=1, ge=1)

    covered_by_privacy: ClassVar[Units] = RECORD

    def site_update(
        self, update: Vector, rule: LocalRule, work: LocalWork, start: SiteStart
    ) -> tuple[Vector, Arrays]:
        """The update ``(shared,)``, or as many zeros in a tuning round, and nothing to keep."""
        return (np.zeros_like(update) if self._tunes(start) else update), {}

    def personal_state(
        self, ended: Sequence[Vector], rules: Sequence[LocalRule], start: SiteStart
    ) -> Arrays:
        """The weights ``(size,)`` of the site's model in a tuning round; nothing otherwise."""
        return {OWN: ended[-1]} if self._tunes(start) else {}

    def _tunes(self, start: SiteStart) -> bool:
        return start.round_number > start.rounds - self.tuning_rounds
