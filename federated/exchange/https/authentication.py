"""Who a request is from: each is signed by a site's key, once, for one time and one server.

The signature (Ed25519, over :data:`CONTEXT` and JSON of what is listed in :meth:`Stamp.signed`)
covers the method, the path with its query below any prefix of a proxy, and the SHA-256 of the body.
It covers the server's ``instance`` too, which is drawn when the server starts: what was recorded
before a restart is worth nothing after it, although nonces are forgotten then.

TLS hides requests from who is on the wire; this is for who is not: a reverse proxy, and whoever
gets hold of what one has logged.
"""

import binascii
import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federated.exchange.enrolment import Member
from federated.exchange.https.office import Office
from federated.exchange.identity import COORDINATOR, Identity, PublicIdentity
from federated.exchange.message import LARGEST

CONTEXT = b"consilium signed request v2\x00"
# Below whatever prefix.
PREFIX = "/exchange/v2/"
NONCE_BYTES = 16
# The header of an answer to HEAD that says what another answer has in its body.
TOLD = "consilium-told"
# The header of a request that says who has signed it: one short line, since small messages make
# many requests, whose heads would be most of what is on the wire.
HEADER = "consilium"
# Stands in it for the hash of a body that is empty.
NOTHING = "-"
EMPTY = sha256(b"").hexdigest()
_HEX = frozenset("0123456789abcdef")


class RequestRefusedError(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        reason: the kind of the refusal, in a word or two.
        site: who has asked, where that was shown.
        told: what the answer says; it is the same for everybody who is not known.
    """

    def __init__(self, status: int, reason: str, site: str = "", /, **told: Any) -> None:
        super().__init__(reason)
        self.status, self.reason, self.site, self.told = status, reason, site, told


def is_digest(text: str, digits: int = 64) -> bool:
    """Whether a text is so many lower hexadecimal digits."""
    return len(text) == digits and _HEX.issuperset(text)


@dataclass(frozen=True)
class Stamp:
    """What stands in the header of a request, :data:`HEADER`.

    Attributes:
        site: the site's name.
        time: milliseconds since 1970, by the site's clock.
        nonce: 16 bytes as hexadecimal digits, of this request alone.
        body: the SHA-256 of the body.
        instance: the server that it is for.
        signature: the site's.
    """

    site: str
    time: int
    nonce: str
    body: str
    instance: str
    signature: str = ""

    def signed(self, consortium: str, method: str, target: str) -> bytes:
        """What the signature is over.

        Args:
            consortium: the consortium's id.
            method: ``GET`` and so on.
            target: the path with the query, below :data:`PREFIX`.
        """
        parts = [
            consortium, self.instance, self.site, method, target, self.time, self.nonce, self.body,
        ]  # fmt: skip
        return CONTEXT + json.dumps(parts).encode()

    def to_headers(self) -> dict[str, str]:
        """The header of the request: what is in the stamp, with a space in between.

        Bytes are written in the letters of URLs (base64), without what fills them up.
        """
        body = NOTHING if self.body == EMPTY else _short(self.body)
        values = (quote(self.site, safe=""), str(self.time), _short(self.nonce), body)
        return {HEADER: " ".join((*values, self.instance or NOTHING, _short(self.signature)))}

    @staticmethod
    def from_headers(headers: Mapping[str, str]) -> "Stamp | None":
        """The stamp in a request's headers; none where there is none."""
        parts = headers.get(HEADER, "").split(" ")
        if len(parts) != 6:
            return None
        site, when, nonce, body, instance, signature = parts
        if not (when.isascii() and when.isdigit() and len(when) < 17 and int(when) < LARGEST):
            return None
        found = _long(nonce), EMPTY if body == NOTHING else _long(body), _long(signature)
        hexadecimal = zip(found, (2 * NONCE_BYTES, 64, 128), strict=True)
        if not all(is_digest(text, digits) for text, digits in hexadecimal) or len(instance) > 64:
            return None
        told = "" if instance == NOTHING else instance
        return Stamp(unquote(site), int(when), found[0], found[1], told, found[2])


def _short(digits: str) -> str:
    return urlsafe_b64encode(bytes.fromhex(digits)).rstrip(b"=").decode()


def _long(text: str) -> str:
    """The hexadecimal digits of what :func:`_short` has written; nothing where it has not."""
    try:
        digits = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
    # Several texts are read as the same bytes, and one of them is written.
    return digits if _short(digits) == text else ""


def stamp(
    site: Identity, consortium: str, method: str, target: str, body: bytes, at: float, instance: str
) -> Stamp:
    """A signed stamp of a new request.

    Args:
        site: who asks.
        consortium: the consortium's id.
        method: ``GET`` and so on.
        target: the path with the query, below :data:`PREFIX`.
        body: the body.
        at: seconds since 1970.
        instance: the server's, as it has told last; empty before that.
    """
    nonce, digest = secrets.token_hex(NONCE_BYTES), sha256(body).hexdigest()
    bare = Stamp(site.name, round(at * 1000), nonce, digest, instance)
    signature = site.sign(bare.signed(consortium, method, target)).hex()
    return Stamp(bare.site, bare.time, nonce, digest, instance, signature)


class Nonces:
    """The requests of each site that were answered in the last time, so many at most."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._seen: dict[str, OrderedDict[str, float]] = {}

    def is_full(self, site: str, now: float) -> bool:
        """Whether so many requests came that no more can be remembered."""
        seen = self._seen.setdefault(site, OrderedDict())
        while seen and next(iter(seen.values())) < now - self._seconds:
            seen.popitem(last=False)
        return len(seen) >= self._most

    def is_new(self, site: str, nonce: str, now: float) -> bool:
        """Whether a nonce was not there before; it is from now on."""
        seen = self._seen.setdefault(site, OrderedDict())
        if nonce in seen:
            return False
        seen[nonce] = now
        return True


# Whose signature is checked where a name is nobody's, so that it takes as long.
_NOBODY = PublicIdentity("nobody", Ed25519PrivateKey.generate().public_key().public_bytes_raw())


class Gate:
    """Lets enrolled sites in, and nobody else."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._nonces = Nonces(office.limits.nonces, 2 * office.limits.clock)
        self.instance = secrets.token_urlsafe(NONCE_BYTES)

    def now(self) -> dict[str, Any]:
        """What everybody is told who is not let in: the time, and the instance to sign for."""
        return {"time": self._office.clock(), "instance": self.instance}

    def enter(self, method: str, target: str, headers: Mapping[str, str]) -> tuple[Member, Stamp]:
        """The site that a request is from, by its headers alone.

        Args:
            method: ``GET`` and so on.
            target: the path with the query, below :data:`PREFIX`.
            headers: by their names in small letters.

        Raises:
            RequestRefusedError: it is from nobody whom the coordinator knows, or an old one.
        """
        given = Stamp.from_headers(headers)
        if given is None:
            raise RequestRefusedError(401, "not signed", **self.now())
        member = self._office.members().members.get(given.site)
        if given.site == COORDINATOR:
            member = None
        key = member.identity if member else _NOBODY
        signed = given.signed(self._office.consortium, method, target)
        if not key.verifies(bytes.fromhex(given.signature), signed) or member is None:
            reason = "bad signature" if member else "not enrolled"
            raise RequestRefusedError(401, reason, **self.now())
        self._check_fresh(given)
        if member.standing != "enrolled":
            raise RequestRefusedError(403, "suspended", given.site, **self._told("suspended"))
        return member, given

    def _check_fresh(self, given: Stamp) -> None:
        """Refuse a request of a known site that was not made for this server, now, once.

        Raises:
            RequestRefusedError: it was not.
        """
        now, site = self._office.clock(), given.site
        if abs(given.time / 1000 - now) > self._office.limits.clock:
            off = round(given.time / 1000 - now)
            raise RequestRefusedError(401, f"clock off by {off} s", site, **self._told("clock"))
        if given.instance != self.instance:
            raise RequestRefusedError(401, "instance", site, **self._told("instance"))
        if self._nonces.is_full(site, now):
            raise RequestRefusedError(429, "too many requests", site, **self._told("busy"))
        if not self._nonces.is_new(site, given.nonce, now):
            raise RequestRefusedError(401, "replayed", site, **self._told("replayed"))

    def _told(self, reason: str) -> dict[str, Any]:
        return self.now() | {"reason": reason}
