"""What tells one record of a data set from another: its values, not where they are stored.

A record is one case: an image and its label, or its images and their mask. Its digest is SHA-256
over the decoded values and their shapes, so it does not depend on the names of files, on
compression, or on the container that the values were read from.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.data.folders.families import CaseFiles


def array_digest(arrays: Iterable[npt.NDArray[Any]]) -> str:
    """Sixty-four hexadecimal digits of the shapes and values of arrays, in their order.

    Values are taken as float64, so that the same numbers in another type are the same record.
    """
    digest = sha256()
    for array in arrays:
        digest.update(f"{array.shape}|".encode())
        digest.update(np.ascontiguousarray(array, "<f8").tobytes())
    return digest.hexdigest()


def labelled_digests(images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[str, ...]:
    """The digests of the records with ``images`` ``(n, …)`` and ``labels`` ``(n, …)``."""
    pairs = zip(images, labels, strict=True)
    return tuple(array_digest([image, np.asarray(label)]) for image, label in pairs)


def case_digest(case: CaseFiles) -> str:
    """The digest of a case of a folder: its images, and its mask where it has one.

    It reads all files. Whoever asks often keeps it, for no longer than what was prepared of them.

    Raises:
        ConsiliumError: a file cannot be read.
    """
    from federated.data.folders.read_case import read_case

    # As float32: what a scaled file and one of real numbers hold alike is the same record.
    images, mask = read_case(case)
    arrays: list[npt.NDArray[Any]] = [image.values.astype(np.float32) for image in images]
    if mask is not None:
        arrays.append(mask.values)
    return array_digest(arrays)


def identities(digests: Sequence[str]) -> tuple[str, ...]:
    """A name for each record that no other has: its digest, and its number among equal records.

    The set of names does not depend on the order of the records; taking one record away takes one
    name away and leaves all others as they are.
    """
    seen: Counter[str] = Counter()
    names = []
    for digest in digests:
        names.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return tuple(names)
