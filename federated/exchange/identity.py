"""Who a party is: an Ed25519 key (RFC 8032) that it signs with, and a name that others know it by.

The private half is made where the party is and never leaves its home. The public half is told to
the other side once, and compared over another channel by its fingerprint.
"""

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from federated.errors import ConsiliumError
from federated.files import PRIVATE
from federated.secrets.home import private_folder, refuse_open
from federated.settings.names import refuse_name

KEY_BYTES = 32
SIGNATURE_BYTES = 64
# The name by which every party knows the coordinator; no site can have it.
COORDINATOR = "coordinator"


@dataclass(frozen=True)
class PublicIdentity:
    """What others know of a party: its name, and the public half of its key, 32 bytes."""

    name: str
    key: bytes

    def __post_init__(self) -> None:
        refuse_name(self.name, "a party's name")
        if len(self.key) != KEY_BYTES:
            raise ConsiliumError(
                f"The public key of {self.name} has {len(self.key)} bytes, and an Ed25519 key has "
                f"{KEY_BYTES}. Have the party send its public identity again."
            )

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the public key, as eight groups of four hexadecimal digits.

        These 128 bits are what two people compare over the telephone.
        """
        digits = sha256(self.key).hexdigest()[:32]
        return " ".join(digits[start : start + 4] for start in range(0, 32, 4))

    @property
    def consortium(self) -> str:
        """The id of the consortium whose coordinator this is, 32 hexadecimal digits."""
        return sha256(self.key).hexdigest()[:32]

    def verifies(self, signature: bytes, content: bytes) -> bool:
        """Whether this party has signed ``content``."""
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, content)
        except (InvalidSignature, ValueError):
            return False
        return True

    def to_json(self) -> dict[str, str]:
        """The identity as plain values."""
        return {"name": self.name, "key": self.key.hex()}

    @staticmethod
    def from_json(value: object, where: str) -> "PublicIdentity":
        """The identity from plain values that :meth:`to_json` gave; ``where`` is for the message.

        Raises:
            ConsiliumError: the value is something else.
        """
        if isinstance(value, dict) and value.keys() == {"name", "key"}:
            name, key = value["name"], value["key"]
            if isinstance(name, str) and isinstance(key, str):
                try:
                    return PublicIdentity(name, bytes.fromhex(key))
                except ValueError:
                    pass
        raise ConsiliumError(
            f"{where} holds no public identity: a name and a key of {2 * KEY_BYTES} hexadecimal "
            "digits are expected. Have the party send its public identity again."
        )


class Identity:
    """A party with the private half of its key, with which it signs."""

    def __init__(self, name: str, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.public = PublicIdentity(name, self._key.public_key().public_bytes_raw())

    @property
    def name(self) -> str:
        """The party's name."""
        return self.public.name

    def sign(self, content: bytes) -> bytes:
        """The signature of ``content``, 64 bytes; the same content has the same signature."""
        return self._key.sign(content)


def own_identity(name: str, path: Path, root: Path) -> Identity:
    """A party's identity from its key's file, which is made if it is not there.

    Args:
        name: the party's name.
        path: the file of the private key, 32 bytes, open to its owner alone.
        root: the party's home; folders from there down to the key have to be closed to others.

    Raises:
        ConsiliumError: others can open the file or a folder of it, or it holds no key.
    """
    private_folder(path.parent, root)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:
        refuse_open(path)
        private = path.read_bytes()
        if len(private) != KEY_BYTES:
            raise ConsiliumError(
                f"The key {path} of {name} is damaged: it has {len(private)} bytes and not "
                f"{KEY_BYTES}. Put the file back; with another key the party has to be enrolled "
                "anew."
            ) from None
        return Identity(name, private)
    with os.fdopen(handle, "wb") as file:
        private = Ed25519PrivateKey.generate().private_bytes_raw()
        file.write(private)
        file.flush()
        os.fsync(file.fileno())
    return Identity(name, private)
