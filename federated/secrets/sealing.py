"""Sealing: what one party alone can open, by HPKE (RFC 9180) in base mode.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20-Poly1305. What is sealed is for
the owner of one public key, and for one label, which both sides know: under another label it does
not open. Base mode says nothing of who has sealed; that is for the signature of the message.
"""

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SEALING_KEY_BYTES = 32
# What is sealed is longer by the sender's ephemeral key and the tag.
OVERHEAD = 32 + 16

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def new_sealing_key() -> bytes:
    """A private key of 32 bytes from the operating system's randomness."""
    return X25519PrivateKey.generate().private_bytes_raw()


def sealing_public(private: bytes) -> bytes:
    """The public half of a private key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_to(public: bytes, content: bytes, label: str) -> bytes:
    """``content`` as the owner of a public key alone can read it, :data:`OVERHEAD` bytes longer.

    It is never twice the same.

    Raises:
        ValueError: the key is none, or one with which everybody could open what is sealed.
    """
    try:
        key = X25519PublicKey.from_public_bytes(public)
        return bytes(_SUITE.encrypt(content, key, label.encode()))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"the public key is not usable ({error})") from error


def open_sealed(private: bytes, sealed: bytes, label: str) -> bytes:
    """The content of what was sealed to the owner of a private key.

    Raises:
        ValueError: it was changed, or sealed to another key or under another label.
    """
    key = X25519PrivateKey.from_private_bytes(private)
    try:
        return bytes(_SUITE.decrypt(sealed, key, label.encode()))
    except (InvalidTag, ValueError) as error:
        raise ValueError("it was changed, or is sealed to another one") from error
