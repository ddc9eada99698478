"""Keys for one purpose each, from one secret, by HKDF-SHA256 (RFC 5869)."""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def derive_key(secret: bytes, purpose: str) -> bytes:
    """A key of :data:`KEY_BYTES` bytes from a secret, for one purpose.

    The keys of two purposes say nothing of each other.
    """
    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode())
    return kdf.derive(secret)
