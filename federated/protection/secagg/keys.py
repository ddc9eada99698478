"""How two sites come to a common secret: X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869)."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from federated.errors import ConsiliumError

KEY_BYTES = 32


@dataclass(frozen=True)
class KeyPair:
    """A pair for one round; ``private`` never leaves the site but in shares of ``masking`` keys."""

    private: bytes
    public: bytes

    @staticmethod
    def new() -> "KeyPair":
        """From the operating system's randomness: no seed may lead to it."""
        key = X25519PrivateKey.generate()
        private = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return KeyPair(private, public_of(private))


def public_of(private: bytes) -> bytes:
    """The public half of a private key."""
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def common_key(private: bytes, public: bytes, purpose: str) -> bytes:
    """Thirty-two bytes that the owners of two key pairs have in common, one key a purpose.

    Raises:
        ConsiliumError: ``public`` is not a public key, or one that makes the secret predictable.
    """
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except (ValueError, InvalidKey) as error:
        raise ConsiliumError(
            f"A site's public key for {purpose} is not usable: {error}."
        ) from error
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode()).derive(
        secret
    )
