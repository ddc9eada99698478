"""Other names for patients and cases, under a secret that is made once and stays at the site."""

import hmac
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes

from federated.errors import ConsiliumError, why_unreadable
from federated.files import PRIVATE, atomic_path, locked
from federated.secrets.home import consilium_home, private_folder, refuse_open
from federated.secrets.key_derivation import KEY_BYTES, derive_key

FILE = "pseudonyms.key"
PURPOSE = "pseudonyms of patients"
DIGITS = 16


def pseudonym(named: str, secret: bytes) -> str:
    """A name for a patient or a case that only a holder of the site's secret can connect with it.

    It is HMAC-SHA256 (RFC 2104) of the PatientID, or of the case's name, without spaces around it,
    under a key that is derived from the secret for this alone, cut to 64 bits: the same patient has
    the same name in every series of the site, and another one at another site. Whoever lacks the
    secret cannot try out PatientIDs; whoever has it can, so it must stay at the site.

    Raises:
        ValueError: there is no name; patients without one would be one.
    """
    stripped = named.strip()
    if not stripped:
        raise ValueError("a patient without an ID has no pseudonym")
    key = derive_key(secret, PURPOSE)
    return hmac.new(key, stripped.encode(), sha256).hexdigest()[:DIGITS]


def pseudonym_secret(home: Path | None = None) -> bytes:
    """The site's secret for pseudonyms, of 32 bytes from the operating system's generator.

    It lies in ``home``, by default the site's own, and is made where there is none. Without it
    nobody can connect a pseudonym with a PatientID, and with another one every patient has another
    name: it belongs into the site's backup, and nowhere else.

    Raises:
        ConsiliumError: others can read it, or it is damaged.
    """
    home = consilium_home() if home is None else home
    private_folder(home, home)
    path = home / FILE
    with locked(home / f".{FILE}.lock"):
        if not path.exists():
            with atomic_path(path, PRIVATE) as temporary:
                temporary.write_bytes(token_bytes(KEY_BYTES))
    refuse_open(path)
    try:
        secret = path.read_bytes()
    except OSError as error:
        raise ConsiliumError(
            f"The secret for pseudonyms {path} cannot be read: {why_unreadable(error)}. Make it "
            "readable to you, or put it back from the site's backup."
        ) from error
    if len(secret) != KEY_BYTES:
        raise ConsiliumError(
            f"The secret for pseudonyms {path} has {len(secret)} bytes and not {KEY_BYTES}. Put it "
            "back from the site's backup; a new one would give every patient another name."
        )
    return secret
