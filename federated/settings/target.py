"""A number that is predicted: what is known of it before any case is seen."""

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Annotated, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Target:
    """The range of a number, in its own unit, and what it is standardised with.

    Every site standardises with the same two numbers, and they come from the description of the
    data set, which everybody has; nothing is computed of a site's labels for it, so nothing of
    them is told. ``mean`` and ``sd`` may be published ones. Without them they are those of numbers
    that are spread evenly over the range: its middle, and (high − low) / √12.

    All labels lie in the range, ends included, and so do all predictions: what a network predicts
    beyond an end is taken to be that end. ``whole`` says that labels are whole numbers, as grades
    are, so that a sum of them may tell how many cases have which.

    Raises:
        ValueError: an end is no finite number, the range is empty, or the standard deviation is
            not above 0.
    """

    # For whoever reads one from a file: it may have no key but these.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    low: float
    high: float
    mean: float | None = None
    sd: float | None = None
    whole: bool = False
    unit: Annotated[str, Field(max_length=40)] = ""

    def __post_init__(self) -> None:
        given = [self.low, self.high, *(v for v in (self.mean, self.sd) if v is not None)]
        if not all(isfinite(value) for value in given) or self.low >= self.high:
            raise ValueError(f"a number from {self.low} to {self.high} has no range")
        if self.sd is not None and self.sd <= 0:
            raise ValueError(f"a standard deviation of {self.sd} is not above 0")

    @property
    def width(self) -> float:
        """The width of the range."""
        return self.high - self.low

    @property
    def centre(self) -> float:
        """What is subtracted of a label to standardise it."""
        return (self.low + self.high) / 2 if self.mean is None else self.mean

    @property
    def scale(self) -> float:
        """What a label is then divided by."""
        return self.width / sqrt(12) if self.sd is None else self.sd

    def share(self, numbers: Numbers) -> Numbers:
        """Where numbers in the range lie in it: from 0 at its low end to 1 at its high end."""
        return np.asarray((numbers - self.low) / self.width, np.float64)
