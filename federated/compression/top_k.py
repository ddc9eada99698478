"""Top-k: every site sends the largest of its own values, and which they are.

MedHE (arXiv 2511.09043) keeps |u| ≥ τ_t, where the threshold follows τ_t = α·τ_{t−1} + (1−α)·τ_now
and τ_now is the magnitude that keeps the wanted share; α = ``ema``. With α = 0 this is exact top-k,
k = round(density · d), ties broken by position.

What leaks: the positions travel in the clear, so the coordinator learns which weights a site's
patients moved most. Positions differ between sites, so ciphertexts do not add up; under encryption
use ``shared_mask``.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from federated.compression.base import Compression, largest, sent_count
from federated.update import Arrays, Positions, Vector

THRESHOLD = "threshold"


class TopK(Compression):
    """The share ``density`` of update plus residual, chosen by each site by their magnitude."""

    name: Literal["top_k"] = "top_k"
    density: float = Field(gt=0, le=1)
    ema: float = Field(default=0.0, ge=0, lt=1)

    form_is_public: ClassVar[bool] = False
    same_positions: ClassVar[bool] = False

    def count(self, length: int) -> int:
        """How many of ``length`` values are sent: the share ``density``, about so with ``ema``."""
        return sent_count(self.density, length)

    def own_positions(self, vector: Vector, memory: Arrays) -> tuple[Positions, Arrays]:
        """The positions of the largest magnitudes, and the threshold for the next round."""
        magnitude = np.abs(vector)
        chosen = largest(magnitude, self.count(len(vector)))
        if self.ema == 0:
            return chosen, {}
        now = magnitude[chosen].min()
        before = memory[THRESHOLD][0] if THRESHOLD in memory else now
        threshold = np.float32(self.ema * before + (1 - self.ema) * now)
        return np.flatnonzero(magnitude >= threshold), {THRESHOLD: np.array([threshold])}
