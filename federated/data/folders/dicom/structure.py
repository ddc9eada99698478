"""One thing that is marked on a series, whatever the form in which it is stored."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.source import SourceSeries


@dataclass(frozen=True, eq=False)
class Structure:
    """A segment or a contoured structure: its number, its name, and how it is drawn.

    ``draw`` makes what is inside of it, ``(slices, rows, columns)``, on the slices of a series.

    Raises (``draw``):
        ConsiliumError: it is of another series, or does not lie on the series' slices.
    """

    number: int
    name: str
    draw: Callable[[SourceSeries], npt.NDArray[np.bool_]]

    def is_named(self, wanted: str) -> bool:
        """Whether a name means this structure: its own, in any case, or its number."""
        return wanted.strip().casefold() in (self.name.strip().casefold(), str(self.number))

    @property
    def described(self) -> str:
        """Its number and its name, for messages."""
        return f"{self.number} {self.name!r}"
