"""A site's cases as their files hold them, before they are prepared for any network.

What is counted of a site's images must not depend on a spacing or a shape that is planned from the
counts. A simulated scanner shows its images here too, on the grid of the files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from federated.data.folders.families import CaseFiles, Family
from federated.data.folders.intensities import PERCENTILES
from federated.data.folders.prepared_case import known_labels, refuse_elsewhere, refuse_unfit
from federated.data.folders.read_case import read_case
from federated.data.folders.volume import Volume
from federated.data.scanner import ScannerProfile, noise_number, show


@dataclass(frozen=True, eq=False)
class RawCase:
    """A case: a volume for each modality, its labels, and what its table says of the patient.

    ``labels`` are the class of each voxel ``(*spatial)``, or the classes of the whole case
    ``(n,)``; ``None`` where a mask is missing. ``attributes`` are cells by the names of their
    columns, and ``features`` the numbers that were derived from the image, then their covariates.
    """

    images: Sequence[Volume]
    labels: npt.NDArray[Any] | None
    attributes: Mapping[str, str] = field(default_factory=dict)
    features: tuple[float, ...] = ()


def raw_case(family: Family, case: CaseFiles, profile: ScannerProfile | None = None) -> RawCase:
    """Read a case of a folder.

    Args:
        family: the data set's; neither its spacing nor its shape is used.
        case: the files.
        profile: the simulated scanner that shows the images, if any.

    Raises:
        ConsiliumError: a file cannot be read, or does not fit the family or the others.
    """
    volumes, mask = read_case(case)
    refuse_elsewhere(case.name, [*volumes, *([mask] if mask else [])])
    labels: npt.NDArray[Any] | None = None
    if mask is not None:
        labels = known_labels(family, case, mask)
    refuse_unfit(family, case.name, volumes, labels)
    if case.target is not None:
        labels = np.asarray(case.target)
    if profile is not None:
        volumes = [shown(volume, profile, noise_number(case.name)) for volume in volumes]
    return RawCase(volumes, labels, dict(case.attributes), case.features)


def shown(volume: Volume, profile: ScannerProfile, number: int) -> Volume:
    """A volume as a simulated scanner shows it, in the units that it had.

    Args:
        volume: the volume.
        profile: the scanner.
        number: what the scanner's noise depends on.
    """
    values = volume.values.astype(np.float64)
    low, high = np.percentile(values, PERCENTILES)
    if not low < high:
        low, high = values.min(), values.max()
    unit = np.clip((values - low) / (high - low), 0, 1).astype(np.float32)
    with torch.random.fork_rng(devices=[]):  # TorchIO draws even where nothing is random
        seen = show(torch.from_numpy(unit), profile, number).numpy()
    return replace(volume, values=low + seen.astype(np.float64) * (high - low))
