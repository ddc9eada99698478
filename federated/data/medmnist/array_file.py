"""Arrays from ``.npz`` files."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError, unreadable

NPZ = ".npz"
MOST_BYTES = 2**33


def is_npz(path: Path) -> bool:
    """Whether a file holds arrays, by the ending of its name."""
    return path.name.lower().endswith(NPZ)


def read_arrays(path: Path, wanted: Callable[[str], bool]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file whose names are ``wanted``; none is unpickled.

    Raises:
        ConsiliumError: the file is missing, damaged, too large or of another kind, or has no such
            array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MOST_BYTES:
            raise ConsiliumError(
                f"The file {path} would take {size} bytes of memory; {MOST_BYTES} are possible. "
                "Split it."
            )
        with np.load(path, allow_pickle=False) as file:
            names = list(file.files)
            arrays = {name: file[name] for name in names if wanted(name)}
    except ConsiliumError:
        raise
    except Exception as error:  # whatever a decoder makes of damaged bytes
        raise unreadable(path, error) from error
    if not arrays:
        raise ConsiliumError(
            f"The file {path} has no array whose name is `image` for segmentation, or ends in "
            f"`images` for classification; it has {', '.join(names) or 'none'}."
        )
    return arrays
