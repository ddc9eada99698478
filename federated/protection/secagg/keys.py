"""How two sites come to a common secret: X25519 (RFC 7748) and HKDF."""

import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from federated.errors import ConsiliumError
from federated.secrets.key_derivation import derive_key

# The length of the seeds that are shared out: 128 bits, which is also about X25519's strength.
SEED_BYTES = 16


@dataclass(frozen=True)
class KeyPair:
    """A pair of X25519 keys for one round, 32 bytes each."""

    private: bytes
    public: bytes

    @staticmethod
    def new() -> "KeyPair":
        """A pair from the operating system's randomness."""
        key = X25519PrivateKey.generate()
        return KeyPair.of(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))

    @staticmethod
    def of(private: bytes) -> "KeyPair":
        """The pair of a private key, which may be any 32 bytes."""
        key = X25519PrivateKey.from_private_bytes(private).public_key()
        return KeyPair(private, key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def new_seed() -> bytes:
    """A seed of :data:`SEED_BYTES` bytes from the operating system's randomness."""
    return os.urandom(SEED_BYTES)


def common_key(private: bytes, public: bytes, purpose: str) -> bytes:
    """Thirty-two bytes that the owners of two key pairs have in common, another key per purpose.

    Raises:
        ConsiliumError: ``public`` is not a public key, or is one that makes the secret predictable.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except (ValueError, InvalidKey) as error:
        raise ConsiliumError(
            f"A site's public key for {purpose} is not usable: {error}."
        ) from error
    return derive_key(secret, purpose)
