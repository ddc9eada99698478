"""Signed messages: a header that says what a message is, the sender's signature, and a body.

As bytes a message is the eight bytes :data:`MAGIC`, the length of the header in four bytes, the
header, the signature, and the body. The header is JSON in one form only (keys in order, no spaces),
and has the body's length and SHA-256. The signature is over :data:`CONTEXT` and the header, and so
over both; with the header and the signature alone it can be checked what a party has sent.

Nothing is read before its size is known to be one that is expected: the header is short, and the
body is as long as the header says, the file has no byte more or less, and whoever reads says how
long it may be. The signature is checked before the body is read.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import Any, BinaryIO, get_type_hints

from federated.errors import RefusalError
from federated.exchange.identity import SIGNATURE_BYTES, Identity, PublicIdentity

MAGIC = b"CONSIL\x00\x01"
CONTEXT = b"consilium signed message v1\x00"
# The names in a header have at most a hundred bytes each, which JSON may write as six.
MOST_HEADER = 4096
LENGTH_BYTES = 4
# In bytes: as much of a body is read at once that is checked and not kept.
PIECE = 2**20
# No integer in a header is larger; a run has no more rounds than this.
LARGEST = 2**53
DIGEST_DIGITS = 64
# Of how many signatures a process remembers whether they are right, of 4 KB each at most.
MOST_CHECKED = 1024


class MessageRefusedError(RefusalError):
    """A message that its receiver does not take.

    ``reason`` is the kind of the refusal for the audit log, in a word or two.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Header:
    """What a message is, all of it signed.

    Attributes:
        consortium: the consortium's id, which is the fingerprint of its coordinator's key.
        run: the run's id.
        round: the round's number; 0 before the first.
        attempt: how often the run was begun or resumed; a round that is done again is another one.
        kind: what the body is.
        sender: the name of who signed.
        recipient: the name of who it is for, or ``all``.
        state: the SHA-256 of the state that the round starts from; empty before there is one.
        plan: the SHA-256 of the plan that the message answers to; empty for the first plan itself.
        length: the number of bytes of the body.
        sha256: the SHA-256 of the body.
    """

    consortium: str
    run: str
    round: int
    attempt: int
    kind: str
    sender: str
    recipient: str
    state: str
    plan: str
    length: int
    sha256: str

    def to_bytes(self) -> bytes:
        """The header's one form as bytes."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        # Whoever signs, checks, names or writes a message asks for it.
        fields = {name: getattr(self, name) for name in _KINDS}
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(content: bytes, where: str) -> "Header":
        """The header from the bytes that :meth:`to_bytes` gives, and no others.

        Raises:
            MessageRefusedError: they are something else.
        """
        try:
            header = Header._from_json(json.loads(content))
            if header.to_bytes() != content:
                raise ValueError("it is not written as headers are")
        except (ValueError, RecursionError) as error:
            raise _no_header(where, error) from error
        return header

    @staticmethod
    def from_json(value: Any, where: str) -> "Header":
        """The header from plain values, one for each field and no others.

        Raises:
            MessageRefusedError: they are something else.
        """
        try:
            return Header._from_json(value)
        except ValueError as error:
            raise _no_header(where, error) from error

    @staticmethod
    def _from_json(value: Any) -> "Header":
        if not isinstance(value, dict) or value.keys() != _KINDS.keys():
            raise ValueError("it has other fields than a header has")
        for name, kind in _KINDS.items():
            if type(value[name]) is not kind:
                raise ValueError(f"its {name} is {value[name]!r:.60}")
        header = Header(**value)
        if not all(0 <= n <= LARGEST for n in (header.round, header.attempt, header.length)):
            raise ValueError("a number is out of range")
        # In a list its length stands nowhere, and what is checked of it is remembered.
        if (length := len(header.to_bytes())) > MOST_HEADER:
            raise ValueError(f"it has {length} bytes, and a header has at most {MOST_HEADER}")
        return header


_KINDS: Mapping[str, type] = get_type_hints(Header)


def _no_header(where: str, error: Exception) -> MessageRefusedError:
    said = f"The message {where} is refused: its header is none ({error})."
    return MessageRefusedError("bad header", said)


@dataclass(frozen=True)
class Signed:
    """A header with its sender's signature: what shows that a party has sent a body."""

    header: Header
    signature: bytes

    def is_from(self, sender: PublicIdentity) -> bool:
        """Whether the header is signed by ``sender`` and carries its name."""
        named = self.header.sender == sender.name
        return named and _is_signed(sender, self.signature, self.header.to_bytes())

    def is_of(self, body: bytes) -> bool:
        """Whether ``body`` is the one that was signed."""
        header = self.header
        return len(body) == header.length and sha256(body).hexdigest() == header.sha256

    @property
    def digest(self) -> str:
        """The SHA-256 of the header, by which other messages refer to this one."""
        return sha256(self.header.to_bytes()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The header and the signature as plain values."""
        return {"header": asdict(self.header), "signature": self.signature.hex()}

    @staticmethod
    def from_json(value: Any, where: str) -> "Signed":
        """The header and the signature from plain values that :meth:`to_json` gave.

        Raises:
            MessageRefusedError: the value is something else.
        """
        try:
            header, signature = value["header"], bytes.fromhex(value["signature"])
        except (TypeError, KeyError, ValueError) as error:
            raise MessageRefusedError(
                "bad header", f"{where} holds no signed header ({error!r:.100})."
            ) from error
        return Signed(Header.from_json(header, where), signature)


# It follows from the three values alone. A site reads some messages in each stage of a round, and
# in a worker there are stages of many sites, which are all told the same.
@lru_cache(maxsize=MOST_CHECKED)
def _is_signed(sender: PublicIdentity, signature: bytes, header: bytes) -> bool:
    """Whether a header's bytes are signed by ``sender``."""
    return sender.verifies(signature, CONTEXT + header)


@dataclass(frozen=True)
class Message:
    """A signed header and the body that it is of."""

    signed: Signed
    body: bytes

    @property
    def header(self) -> Header:
        """What the message is."""
        return self.signed.header

    @property
    def size(self) -> int:
        """How many bytes travel."""
        return len(_prefix(self.signed)) + len(self.body)

    def to_bytes(self) -> bytes:
        """The whole message as bytes."""
        return b"".join((_prefix(self.signed), self.body))


@dataclass(frozen=True)
class Topic:
    """What messages of a round have in common: see :class:`Header`.

    ``sum`` is the name of the sum that they help to open, and empty for that of a round's updates.
    It is not a field of the header but the first part of each kind there, so that no message about
    one sum passes for one about another.
    """

    consortium: str
    run: str
    attempt: int
    round: int = 0
    state: str = ""
    plan: str = ""
    sum: str = ""

    def kind(self, kind: str) -> str:
        """A kind as it stands in headers: ``payload``, or ``evaluation.payload`` of a named sum."""
        return f"{self.sum}.{kind}" if self.sum else kind


def differences(
    header: Header, topic: Topic, kind: str, recipient: str
) -> dict[str, tuple[object, object]]:
    """What a header says otherwise than is expected, by field: what it says, and what it should.

    Args:
        header: of a message.
        topic: what the message has to belong to.
        kind: what it has to be.
        recipient: who it has to be for.
    """
    expected = vars(topic) | {"kind": topic.kind(kind), "recipient": recipient}
    del expected["sum"]
    told = {name: (getattr(header, name), value) for name, value in expected.items()}
    return {name: pair for name, pair in told.items() if pair[0] != pair[1]}


def sign(sender: Identity, topic: Topic, kind: str, recipient: str, body: bytes) -> Message:
    """A signed message.

    Args:
        sender: who signs.
        topic: the round, and what it starts from.
        kind: what the body is.
        recipient: who it is for.
        body: the content.
    """
    header = Header(
        topic.consortium,
        topic.run,
        topic.round,
        topic.attempt,
        topic.kind(kind),
        sender.name,
        recipient,
        topic.state,
        topic.plan,
        len(body),
        sha256(body).hexdigest(),
    )
    return Message(Signed(header, sender.sign(CONTEXT + header.to_bytes())), body)


def _prefix(signed: Signed) -> bytes:
    header = signed.header.to_bytes()
    return b"".join((MAGIC, len(header).to_bytes(LENGTH_BYTES, "big"), header, signed.signature))


@dataclass(frozen=True)
class Unread:
    """A message of which the header was read, and not the body yet."""

    signed: Signed
    where: str
    _file: BufferedReader

    @property
    def header(self) -> Header:
        """What the message says that it is; nobody has checked the signature."""
        return self.signed.header

    def read(self, sender: PublicIdentity, most: int) -> Message:
        """The whole message, once its signature and its length are checked.

        Args:
            sender: who has to have signed it.
            most: how many bytes the body may have.

        Raises:
            MessageRefusedError: the signature is not the sender's, the body is longer than it may
                be, or not the one that was signed.
        """
        self.refuse_other_signer(sender)
        return self.whole(most)

    def refuse_other_signer(self, sender: PublicIdentity) -> None:
        """Refuse a message that ``sender`` has not signed; of its body nothing is read.

        Raises:
            MessageRefusedError: it is one.
        """
        if not self.signed.is_from(sender):
            raise MessageRefusedError(
                "bad signature",
                f"The message {self.where} is refused: it is not signed by {sender.name}.",
            )

    def whole(self, most: int) -> Message:
        """The whole message, whose signature the caller has checked; its body has ``most`` bytes.

        Raises:
            MessageRefusedError: the body is longer than that, or not the one that was signed.
        """
        header = self.header
        if header.length > most:
            raise MessageRefusedError(
                "too large",
                f"The message {self.where} is refused: its body has {header.length} bytes, and "
                f"{header.kind} has at most {most}.",
            )
        body = self._file.read(header.length + 1)
        if not self.signed.is_of(body):
            raise self._other_body()
        return Message(self.signed, body)

    def check_body(self) -> None:
        """Check that the body is the one of the header, in pieces: it may be larger than memory.

        Raises:
            MessageRefusedError: it is another one.
        """
        found = sha256()
        while part := self._file.read(PIECE):
            found.update(part)
        if found.hexdigest() != self.header.sha256:
            raise self._other_body()

    def _other_body(self) -> MessageRefusedError:
        return MessageRefusedError(
            "other body",
            f"The message {self.where} is refused: its body is not the one that was signed.",
        )


def _opened(path: Path) -> BufferedReader:
    """The file, opened; a link, and a pipe that would let nobody go on, is none.

    Raises:
        MessageRefusedError: it is no file, or cannot be read.
        FileNotFoundError: it is not there any more.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return os.fdopen(handle, "rb")
        os.close(handle)
        why = "it is no file"
    except FileNotFoundError:
        raise
    except OSError as error:
        why = str(error.strerror)
    raise MessageRefusedError("no message", f"The file {path} is refused: {why}.")


@contextmanager
def open_message(path: Path) -> Iterator[Unread]:
    """Read the header of a message's file, which stays open for the body.

    Raises:
        MessageRefusedError: the file is no message, or not as long as its header says, or cannot be
            read.
        FileNotFoundError: it is not there any more.
    """
    with _opened(path) as file:
        signed, said = _read_signed(file, str(path))
        _refuse_other_length(os.fstat(file.fileno()).st_size, said, str(path))
        yield Unread(signed, str(path), file)


def messages_in(content: bytes, where: str) -> Iterator[tuple[Signed, bytes]]:
    """The messages that stand one behind the other in ``content``: what is signed, and the whole.

    Their signatures and their bodies are not looked at.

    Args:
        content: whole messages, and nothing else.
        where: what they are called in a refusal.

    Raises:
        MessageRefusedError: it is something else.
    """
    file = BytesIO(content)
    while (start := file.tell()) < len(content):
        signed, length = _read_signed(file, where)
        if start + length > len(content):
            _refuse_other_length(len(content) - start, length, where)
        file.seek(start + length)
        yield signed, content[start : start + length]


def _read_signed(file: BinaryIO, where: str) -> tuple[Signed, int]:
    """The header and the signature of the message that begins here, and how long it says it is.

    Raises:
        MessageRefusedError: none begins here.
    """
    start = file.read(len(MAGIC) + LENGTH_BYTES)
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if not start.startswith(MAGIC) or len(start) < len(MAGIC) + LENGTH_BYTES:
        raise MessageRefusedError("no message", f"The file {where} is refused: it is no message.")
    if length > MOST_HEADER:
        raise MessageRefusedError(
            "header too large",
            f"The message {where} is refused: it gives {length} bytes to its header, and a "
            f"header has at most {MOST_HEADER}.",
        )
    content, signature = file.read(length), file.read(SIGNATURE_BYTES)
    if len(content) != length or len(signature) != SIGNATURE_BYTES:
        raise MessageRefusedError(
            "cut short", f"The message {where} is refused: it ends before its body begins."
        )
    signed = Signed(Header.from_bytes(content, where), signature)
    return signed, len(start) + length + SIGNATURE_BYTES + signed.header.length


def _refuse_other_length(there: int, said: int, where: str) -> None:
    if there != said:
        raise MessageRefusedError(
            "cut short" if there < said else "too long",
            f"The message {where} is refused: it has {there} bytes, and {said} by its header.",
        )
