"""What is random about a case under record-level privacy, so that it is the case's own.

The sensitivity of a sum over cases is the clipping norm only if taking one case away changes no
other case's term. So whether a step draws a case, and all that is random about it in that step,
comes from a stream that belongs to the case. The stream is derived by HKDF from the site's secret
of the release and the identity of the case's record (:func:`federated.data.records.identities`),
never from its place in a batch or in the site's list.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from federated.privacy.noise import SecretRandom

# torch's generator on a CPU keeps so many bits of a seed. That they can be searched does no harm:
# the guarantee rests on nobody knowing which cases a step drew, and not on how a case was changed.
SEED_BITS = 32


class CaseDraws:
    """Poisson samples of a site's cases, one for each step of a release, and draws about each case.

    Args:
        random: the stream of the release; nothing is taken from it directly.
        identities: the identity of each case, no two alike.
        rate: the probability, in (0, 1], with which each step draws each case.
        steps: the number of steps of the release.
    """

    def __init__(
        self, random: SecretRandom, identities: Sequence[str], rate: float, steps: int
    ) -> None:
        assert len(set(identities)) == len(identities), "two cases have one identity"
        # By step, the seeds of the cases that it draws.
        self._seeds: list[dict[int, int]] = [{} for _ in range(steps)]
        self._now: dict[int, int] = {}
        for case, identity in enumerate(identities):
            numbers = random.child(f"case {identity}").uniform(2 * steps).reshape(steps, 2)
            for step in np.flatnonzero(numbers[:, 0] < rate):
                self._seeds[step][case] = int(numbers[step, 1] * 2**SEED_BITS)

    def batches(self) -> Iterator[Tensor]:
        """The indices ``(n,)`` of the cases of each step, in turn; a step may draw none."""
        for seeds in self._seeds:
            self._now = seeds
            yield torch.tensor(list(seeds), dtype=torch.int64)

    def generators(self, cases: Tensor) -> list[torch.Generator]:
        """For each of these cases of the current step, the generator of all draws about it.

        Asked again within the step, the generators begin anew, so that a case comes out the same
        again.
        """
        return [torch.Generator().manual_seed(self._now[int(case)]) for case in cases]
