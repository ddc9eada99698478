"""How two sites come to a common secret: X25519 (RFC 7748) and HKDF."""

import os
from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def _key(self) -> X25519PrivateKey:
        # Reading it takes as long as agreeing on a secret, which a site does with each neighbour.
        return X25519PrivateKey.from_private_bytes(self.private)

    def common_key(self, public: bytes, purpose: str) -> bytes:
        """Thirty-two bytes that the owners of two pairs have in common, another key per purpose.

        Raises:
            ConsiliumError: ``public`` is not a public key, or is one that makes the secret
                predictable.
        """
        try:
            secret = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except (ValueError, InvalidKey) as error:
            raise ConsiliumError(
                f"A site's public key for {purpose} is not usable: {error}."
            ) from error
        return derive_key(secret, purpose)


def new_seed() -> bytes:
    """A seed of :data:`SEED_BYTES` bytes from the operating system's randomness."""
    return os.urandom(SEED_BYTES)
