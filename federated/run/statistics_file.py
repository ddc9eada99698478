"""What sites have told of their test cases after a round, summed over sites, in the run's folder.

It is what the coordinator knows in any case; curves and intervals of a run's report follow from it.
"""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save

from federated.errors import ConsiliumError, why_unreadable
from federated.files import PRIVATE, atomic_path
from federated.learning.statistics import EvaluationStatistics, Form, from_wire, to_wire
from federated.update import Arrays
from federated.weights.bounded_file import Size, open_tensors

# In bytes: histograms of some thousand classes.
LARGEST = Size(256 * 2**20, "evaluation statistics")


def write_statistics(path: Path, statistics: EvaluationStatistics | None) -> None:
    """Write the statistics of a split over all sites; where there are none, there is no file."""
    if statistics is None:
        path.unlink(missing_ok=True)
        return
    write_arrays(path, to_wire(statistics))


def read_statistics(path: Path, form: Form) -> EvaluationStatistics | None:
    """What :func:`write_statistics` wrote; ``None`` where there is no file.

    Raises:
        ConsiliumError: the file is damaged, or of other classes.
    """
    if not path.is_file():
        return None
    return from_wire(read_arrays(path, "curves and intervals"), form, f"this run ({path})")


def write_arrays(path: Path, arrays: Arrays) -> None:
    """Write arrays of a run whole or not at all, for its owner alone."""
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with atomic_path(path, PRIVATE) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: Path, lost: str) -> Arrays:
    """What :func:`write_arrays` wrote.

    Args:
        path: the file.
        lost: what a report is without where the file is removed.

    Raises:
        ConsiliumError: the file is damaged.
    """
    try:
        with open_tensors(path, "np", size=LARGEST) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ConsiliumError(
            f"The run's {path} cannot be read ({why_unreadable(error)}). Put the file back, or "
            f"remove it to have a report without {lost}."
        ) from error
