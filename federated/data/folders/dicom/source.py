"""The slices that a volume was read from: what a mask of it refers to, and is laid back on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.dicom.frames import Floats, Frame
from federated.data.folders.dicom.resampling import Regrid

Array = npt.NDArray[Any]
HALF = 0.5


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """The frames of a volume in the order of its third axis, or the frame of a picture.

    ``regrid`` is how slices at uneven distances or of a tilted gantry became the volume; without
    one, the slices are the volume as they are.
    """

    name: str
    series: str
    frames: tuple[Frame, ...]
    regrid: Regrid | None = None

    @property
    def flat(self) -> bool:
        """Whether it is a picture, which has no place in the patient."""
        return self.frames[0].place is None

    @property
    def frame_of_reference(self) -> str:
        """The UID of the coordinates in which positions are given; ``""`` where there is none."""
        return self.frames[0].found.text("FrameOfReferenceUID")

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of slices, of rows and of columns."""
        return len(self.frames), self.frames[0].rows, self.frames[0].columns

    @property
    def gap(self) -> float:
        """The median distance of slices in mm; that of a single one is not known, and is 1."""
        heights = self.heights
        return float(np.median(np.diff(heights))) if len(heights) > 1 else 1.0

    @property
    def heights(self) -> Floats:
        """The positions of the slices along their normal, in mm, ascending."""
        places = [frame.place for frame in self.frames if frame.place is not None]
        normal = places[0].normal
        return np.array([float(place.origin @ normal) for place in places])

    def on_slices(self, mask: Array) -> Array:
        """A mask on the volume's grid ``(x, y, z)`` as slices ``(slices, rows, columns)``.

        That of a picture is ``(height, width)``. Where slices were resampled, each pixel takes the
        nearest voxel's label.
        """
        if mask.ndim == 2:
            return mask[np.newaxis]
        back = mask if self.regrid is None else self.regrid.nearest_back(mask)
        return np.ascontiguousarray(back.transpose(2, 1, 0))

    def on_volume(self, slices: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """What is inside of a structure: slices ``(slices, rows, columns)`` as ``(x, y, z)``.

        That of a picture is ``(height, width)``. Where slices were resampled, a voxel is inside if
        at least half of it is.
        """
        if self.flat:
            return np.asarray(slices[0])
        turned = slices.transpose(2, 1, 0)
        if self.regrid is None:
            return np.ascontiguousarray(turned)
        return np.asarray(self.regrid.forward(turned, 0.0) >= HALF, bool)
