"""The key of homomorphic encryption: one for a run, made by one of its sites for all of them.

All sites of a run share one secret key. Whoever has it can decrypt every site's payload of that
run: the coordinator does not have it, but a site that colludes with the coordinator could read
another site's update. Where that is not acceptable, use ``secagg_plus`` or ``rlwe_secagg``, in
which there is no such key.

Ciphertexts are symmetric, so there is no public key to encrypt with. What everybody is told is a
:class:`PublicContext`: the parameters, and a commitment to the secret. The commitment is a SHA-256
over SEAL's secret key, of more than a thousand ternary coefficients, and 256 random bits beside it.
With SHA-256 as a random oracle it tells nothing of the secret until all of that is guessed; and
whoever made the key cannot show two sites two secrets with one commitment, which would be a
collision. How the secret gets from one site to another is in ``stages/keys.py``.
"""

import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from string import hexdigits
from typing import Any

from federated.errors import ConsiliumError
from federated.protection.parameters import Parameters
from federated.protection.seal import scratch_file, seal_context, through_file
from federated.protection.seal_bytes import unpacked

COMMITMENT = b"consilium run key v1|"
COMMITMENT_DIGITS = 64
TAG_KEY_BYTES = 32


@dataclass(frozen=True)
class PublicContext:
    """What everybody knows of a run's key: the parameters, and a commitment to the secret.

    ``key_id`` is the commitment, :data:`COMMITMENT_DIGITS` hexadecimal digits.
    """

    parameters: Parameters
    key_id: str

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between parameters and between keys."""
        text = f"{self.parameters.digest}:{self.key_id}"
        return sha256(text.encode()).hexdigest()[:32]

    def to_json(self) -> dict[str, Any]:
        """The context as plain values."""
        return {
            "parameters": self.parameters.to_json(),
            "key_id": self.key_id,
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "PublicContext":
        """The context from plain values that :meth:`to_json` gave.

        Raises:
            ValueError, KeyError, TypeError: they are something else.
        """
        found = PublicContext(Parameters.from_json(value["parameters"]), value["key_id"])
        digits = found.key_id
        if (
            type(digits) is not str
            or len(digits) != COMMITMENT_DIGITS
            or set(digits) - {*hexdigits}
        ):
            raise ValueError("its key_id is no commitment")
        return found


@dataclass(frozen=True)
class SecretContext:
    """What a site works with: the public context, and SEAL's secret key."""

    public: PublicContext
    key: Any
    # What the sites derive other keys from that they have in common; see ``tags.py``.
    common: bytes = b""


@dataclass(frozen=True)
class RunKey:
    """The secret of a run's sites as it is stored and sealed.

    Attributes:
        parameters: what the key is made for; it fits no others.
        secret: SEAL's secret key, as SEAL writes it.
        tags: :data:`TAG_KEY_BYTES` bytes from which the keys of tags are derived (``tags.py``).
    """

    parameters: Parameters
    secret: bytes = field(repr=False)
    tags: bytes = field(repr=False)

    @cached_property
    def public(self) -> PublicContext:
        """What everybody is told of the key."""
        form = json.dumps(self.parameters.to_json(), sort_keys=True).encode()
        digest = sha256(COMMITMENT + sha256(form).digest() + self.to_bytes())
        return PublicContext(self.parameters, digest.hexdigest())

    @cached_property
    def secret_digest(self) -> str:
        """The SHA-256 of what SEAL reads of the secret, whatever it is packed and told with.

        Who knows it can tell whether a key is this one, and nothing else of it.

        Raises:
            ValueError: the secret is not SEAL's key for these parameters.
        """
        written = through_file(self.opened().key.save)
        return sha256(unpacked(written, _most_content(self.parameters))).hexdigest()

    def to_bytes(self) -> bytes:
        """The secret as bytes: the key of the tags, and SEAL's after it."""
        return self.tags + self.secret

    @staticmethod
    def from_bytes(parameters: Parameters, content: bytes) -> "RunKey":
        """The key from the bytes that :meth:`to_bytes` gave.

        Whether they are one is seen when the key is opened.

        Raises:
            ValueError: they are too few.
        """
        if len(content) <= TAG_KEY_BYTES:
            raise ValueError(f"it has {len(content)} bytes")
        return RunKey(parameters, content[TAG_KEY_BYTES:], content[:TAG_KEY_BYTES])

    def opened(self) -> SecretContext:
        """The key as SEAL works with it.

        Raises:
            ValueError: the secret is not SEAL's key for these parameters, or unpacks to more bytes
                than such a key has, which is seen before memory is taken.
        """
        import tenseal.sealapi as seal

        content = unpacked(self.secret, _most_content(self.parameters))
        key = seal.SecretKey()
        with scratch_file() as path:
            path.write_bytes(content)
            try:
                key.load(seal_context(self.parameters), str(path))
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"SEAL cannot read it ({error})") from error
        return SecretContext(self.public, key, self.tags)


def most_key_bytes(parameters: Parameters) -> int:
    """The most bytes that a key of some parameters takes, as :meth:`RunKey.to_bytes` gives it."""
    # SEAL's content does not grow by more than this where it cannot be compressed.
    return TAG_KEY_BYTES + 2 * _most_content(parameters)


def _most_content(parameters: Parameters) -> int:
    return 8 * len(parameters.coefficient_bits) * parameters.degree + 1024


def new_run_key(parameters: Parameters) -> RunKey:
    """A key from the operating system's randomness.

    Raises:
        ConsiliumError: SEAL does not accept the parameters.
    """
    import tenseal.sealapi as seal

    secret = seal.KeyGenerator(seal_context(parameters)).secret_key()
    return RunKey(parameters, through_file(secret.save), os.urandom(TAG_KEY_BYTES))


def parse_context(content: bytes, whose: str) -> PublicContext:
    """The public context that a party has sent; ``whose`` is for the message.

    Raises:
        ConsiliumError: it is none.
    """
    try:
        return PublicContext.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConsiliumError(
            f"What {whose} tells of the run's key is none ({error!r:.100}). Resume the run; the "
            "site tells it again."
        ) from error
