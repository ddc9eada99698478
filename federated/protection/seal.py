"""SEAL through ``tenseal.sealapi``: contexts, and ciphertexts as bytes.

The low-level interface is used because it alone writes seed-compressed ciphertexts: half of a fresh
symmetric ciphertext is the expansion of a seed, so only the seed is written.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.protection.parameters import Parameters
from federated.protection.seal_bytes import unpacked

Body = npt.NDArray[np.uint8]
# Where an open file of this process has a path.
OPEN_FILES = Path("/proc/self/fd")


@lru_cache(maxsize=8)
def seal_context(parameters: Parameters) -> Any:
    """SEAL's context, which holds parameters without any key.

    Raises:
        ConsiliumError: SEAL does not accept the parameters.
    """
    import tenseal.sealapi as seal

    scheme = parameters.scheme
    chosen = seal.EncryptionParameters(getattr(seal.SCHEME_TYPE, scheme.seal_type))
    chosen.set_poly_modulus_degree(parameters.degree)
    try:
        primes = seal.CoeffModulus.Create(parameters.degree, list(parameters.coefficient_bits))
        chosen.set_coeff_modulus(primes)
        if scheme.exact:
            chosen.set_plain_modulus(plain_modulus(parameters.degree, parameters.plain_bits))
    except (ValueError, RuntimeError) as error:
        raise ConsiliumError(
            f"SEAL finds no primes for {parameters.describe()}: {error}. Change "
            "protection.coefficient_bits or protection.plain_bits, or leave them out."
        ) from error
    context = seal.SEALContext(chosen, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise ConsiliumError(
            f"SEAL does not accept {parameters.describe()}: {context.parameters_error_message()}. "
            "Change protection.coefficient_bits or protection.plain_bits, or leave them out."
        )
    return context


def plain_modulus(degree: int, bits: int) -> Any:
    """The largest prime of ``bits`` bits with which BFV has a slot for each coefficient."""
    import tenseal.sealapi as seal

    return seal.PlainModulus.Batching(degree, bits)


@contextmanager
def scratch_file() -> Iterator[Path]:
    """An empty file for what SEAL reads or writes, which it does by paths alone.

    On Linux it is memory of this process without a name in any folder. Secret keys pass through it,
    and however the process ends, also where it is killed, the system takes it back: nothing is left
    behind for others to find. Elsewhere it is a file in a temporary folder of this user's own,
    which a process that is killed leaves there.
    """
    if not hasattr(os, "memfd_create") or not OPEN_FILES.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "value"
            path.touch()
            yield path
        return
    handle = os.memfd_create("consilium", os.MFD_CLOEXEC)
    try:
        yield OPEN_FILES / str(handle)
    finally:
        os.close(handle)


def through_file(write: Callable[[str], None]) -> bytes:
    """The bytes that ``write`` writes to the path that it is given."""
    with scratch_file() as path:
        write(str(path))
        return path.read_bytes()


def join(parts: list[bytes]) -> Body:
    """Ciphertexts one after the other, after their number and lengths, four bytes each."""
    lengths = np.array([len(parts), *map(len, parts)], "<u4").tobytes()
    return np.frombuffer(b"".join([lengths, *parts]), np.uint8)


def split(body: Body, expected: int) -> list[bytes]:
    """The ciphertexts of a body written by :func:`join`.

    Raises:
        ValueError: the body is cut short, or holds another number of ciphertexts than ``expected``.
    """
    count = int.from_bytes(body[:4].tobytes(), "little")
    if count != expected:
        raise ValueError(f"it holds {count} ciphertexts and {expected} are expected")
    lengths = np.frombuffer(body[4 : 4 + 4 * count].tobytes()[: 4 * count], "<u4").astype(int)
    if len(lengths) != count or len(body) != 4 + 4 * count + int(lengths.sum()):
        raise ValueError("it is cut short")
    ends = 4 + 4 * count + np.cumsum(lengths)
    return [body[end - length : end].tobytes() for end, length in zip(ends, lengths, strict=True)]


def load_ciphertexts(context: Any, body: Body, expected: int, most: int) -> list[Any]:
    """The ciphertexts of a body.

    Args:
        context: SEAL's context.
        body: the bytes that :func:`join` made.
        expected: how many ciphertexts it has to hold.
        most: the most bytes that a ciphertext may take unpacked; this is checked before memory is
            taken.

    Raises:
        ValueError: the body is damaged, or SEAL finds a ciphertext that is not of this context.
    """
    import tenseal.sealapi as seal

    result = []
    with scratch_file() as path:
        for raw in split(body, expected):
            path.write_bytes(unpacked(raw, most))
            ciphertext = seal.Ciphertext()
            try:
                ciphertext.load(context, str(path))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"a ciphertext cannot be read ({error})") from error
            if ciphertext.size() != 2:
                raise ValueError(f"a ciphertext has {ciphertext.size()} parts and not two")
            result.append(ciphertext)
    return result


def save_ciphertexts(ciphertexts: list[Any]) -> Body:
    """A body with ciphertexts, as :func:`join` makes it."""
    return join([through_file(ciphertext.save) for ciphertext in ciphertexts])
