"""DP-SGD: record-level differential privacy of local training (Abadi et al. 2016, Algorithm 1).

Each step draws every case with probability q = B/n (Poisson sampling), clips the gradient of each
case to norm C, adds N(0, σ²C²) to their sum and divides by B, the expected batch. Noise comes from
a key that is new in every release (:mod:`federated.privacy.noise`). So does all that is random
about a case (whether a step draws it, flips, patches, TorchIO's changes), from a stream of that key
that belongs to the case's own record (:mod:`federated.privacy.case_draws`): one case more or less
changes no other case's term. A case whose gradient is not finite counts with a term of zero. So the
sum changes by at most C.

Guarantee: (ε, δ) for a record as the unit, where neighbouring data sets of a site differ in one
training case being there or not, against everyone who sees what the site sends, in all rounds. The
site has to follow the protocol, and nobody else. It assumes that nobody knows which cases a step
drew; how a drawn case was changed may be known. n is taken to be public. Training losses are not
reported. Validation and test cases are not covered: statistics of them, or predictions, are shared.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from federated.errors import ConsiliumError
from federated.privacy.accounting import Release
from federated.privacy.adaptive_clipping import AdaptiveClipping
from federated.privacy.base import Private
from federated.privacy.case_draws import CaseDraws
from federated.privacy.case_gradients import Mode, case_gradients
from federated.privacy.clipping import clipped
from federated.privacy.noise import SecretRandom
from federated.settings.base import Unit
from federated.training.objective import Objective

# The layers that draw from torch's global generator.
DRAWING = (
    nn.modules.dropout._DropoutNd,
    nn.RReLU,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
)


class DPSGD(Private):
    """DP-SGD at every site; ``clip`` is the clipping norm C.

    ``mode`` is how gradients of single cases are computed; ``auto`` takes what was fastest, vmap
    for volumes and hooks for images. ``physical_batch`` is how many cases are in memory at a time,
    however many a step draws. With ``adaptive`` the norm begins at C and follows a private quantile
    of the norms, step by step and round by round, at each site for itself.
    """

    name: Literal["dp_sgd"] = "dp_sgd"
    clip: float = Field(default=1.0, gt=0)
    mode: Mode | Literal["auto"] = "auto"
    physical_batch: Annotated[int, Field(ge=1)] = 32
    adaptive: AdaptiveClipping | None = None

    unit: ClassVar[Unit | None] = "record"
    mechanism: ClassVar[str] = "poisson sampled gaussian"

    def sampling(self, cases: int, steps: int, batch_size: int) -> tuple[float, int]:
        """The sampling rate B/n, and as many mechanisms as steps."""
        return min(1.0, batch_size / cases), steps

    def gradients(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        release: Release,
        cases: Sequence[str],
        clip: float,
        random: SecretRandom,
    ) -> "PrivateGradients":
        """The gradients of Poisson batches, clipped and noised.

        Args:
            model: the network, which is trained with them.
            optimizer: the optimiser of that network.
            release: what the site releases in the round.
            cases: the identity of each of the site's training cases, no two alike.
            clip: the clipping norm that the round begins with.
            random: the site's secret stream of this release, and of no other.

        Raises:
            ConsiliumError: as :class:`PrivateGradients`.
        """
        return PrivateGradients(self, model, optimizer, release, cases, clip, random)

    def mode_for(self, model: nn.Module) -> Mode:
        """The mode in which gradients of single cases are computed for a network."""
        if self.mode != "auto":
            return self.mode
        volumes = any(isinstance(module, nn.Conv3d) for module in model.modules())
        return "vmap" if volumes else "hooks"


class PrivateGradients:
    """The gradients of one round of DP-SGD, left in ``.grad``; it has to be closed afterwards.

    With ``adaptive`` the clipping norm changes from step to step.

    Raises:
        ConsiliumError: a layer's output for a case depends on the other cases, as in BatchNorm, or
            on its place in the batch, as in dropout.
    """

    def __init__(
        self,
        settings: DPSGD,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        release: Release,
        cases: Sequence[str],
        clip: float,
        random: SecretRandom,
    ) -> None:
        refuse_unsuitable(model)
        adaptive = settings.adaptive
        self._release, self._random = release, random
        self._draws = CaseDraws(random, cases, release.sampling_rate, release.steps)
        self._expected = release.sampling_rate * len(cases)
        self._clip, self._adaptive = clip, adaptive
        self._noise = release.noise_multiplier
        if adaptive:
            self._noise = adaptive.noise_of_sum(release.noise_multiplier, self._expected)
        self._physical_batch = settings.physical_batch
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._gradients = case_gradients(settings.mode_for(model), model, self._parameters)

    def batches(self) -> Iterator[Tensor]:
        """The indices ``(n,)`` of the cases of each step; a step may draw none."""
        return self._draws.batches()

    def generators(self, cases: Tensor) -> Sequence[torch.Generator]:
        """For each of these cases of the step, the generator of all that is random about it."""
        return self._draws.generators(cases)

    def compute(self, batch: Tensor, objective: Objective) -> None:
        """Write the noised mean gradient of a step into ``.grad``."""
        sums = [torch.zeros_like(parameter) for parameter in self._parameters]
        below = 0.0
        for part in torch.split(batch, self._physical_batch) if len(batch) else ():
            found, norms = self._gradients.clipped_sum(part, objective, self._clip)
            for total, of_part in zip(sums, found, strict=True):
                total += of_part
            below += float((norms <= self._clip).float().sub(0.5).sum())
        for parameter, total in zip(self._parameters, sums, strict=True):
            drawn = torch.from_numpy(self._random.normal(parameter.shape).astype(np.float32))
            noise = self._noise * self._clip * drawn.to(parameter.device)
            parameter.grad = (total + noise) / self._expected
        if self._adaptive:
            self._follow(self._adaptive, below)

    def _follow(self, adaptive: AdaptiveClipping, below: float) -> None:
        """Move the clipping norm by the noised count of this step's norms."""
        noise = adaptive.noise_of_count(self._release.noise_multiplier, self._expected)
        count = below + noise * float(self._random.normal((1,))[0])
        self._clip = adaptive.next_norm(self._clip, count / self._expected + 0.5)

    def noised_mean(
        self, batch: Tensor, vectors: Callable[[Tensor], Tensor], bound: float
    ) -> Tensor:
        """The noised mean ``(width,)`` of a vector of each case of a step, instead of a gradient.

        Each vector is clipped to norm ``bound``, and the noise is σ·``bound``: it is the same
        mechanism as a step on gradients, with a sensitivity of its own.

        Args:
            batch: indices of the cases of the step, ``(n,)``.
            vectors: maps indices to the vectors ``(n, width)``.
            bound: the clipping norm of these vectors, > 0.
        """
        # A batch of none tells the width.
        parts = torch.split(batch, self._physical_batch) if len(batch) else (batch,)
        total = sum(clipped(vectors(part), bound).sum(dim=0) for part in parts)
        assert isinstance(total, Tensor)
        drawn = torch.from_numpy(self._random.normal(total.shape).astype(np.float32))
        noise = self._release.noise_multiplier * bound * drawn.to(total.device)
        return (total + noise) / self._expected

    @property
    def clip(self) -> float | None:
        """The clipping norm that the next round begins with; ``None`` unless it is adaptive."""
        return self._clip if self._adaptive else None

    def close(self) -> None:
        """Leave the model as it was."""
        self._gradients.close()


def refuse_unsuitable(model: nn.Module) -> None:
    """Refuse layers that mix the cases of a batch, or draw at random by a case's place in it.

    Raises:
        ConsiliumError: there are such layers; the message names them, with a remedy.
    """
    from opacus.validators import ModuleValidator

    errors = ModuleValidator.validate(model, strict=False)
    if errors:
        said = " ".join(str(error) for error in errors[:2])
        raise ConsiliumError(
            f"privacy.name=dp_sgd cannot train this network: {said} Set model.norm=group, "
            "instance or batch_fixed."
        )
    # Dropout of nothing draws nothing; MONAI's blocks have it.
    modules = (m for m in model.modules() if isinstance(m, DRAWING) and getattr(m, "p", 1) != 0)
    drawing = sorted({type(module).__name__ for module in modules})
    if drawing:
        raise ConsiliumError(
            f"privacy.name=dp_sgd cannot train this network: {' and '.join(drawing)} draw at "
            "random by a case's place in the batch, so that one case changes what the others get. "
            "Use a network without."
        )
