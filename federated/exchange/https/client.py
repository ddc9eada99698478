"""The client at a site: it fetches what is for the site, and brings what the site has posted.

It dials out and is never dialled. The site's stages know nothing of it: they read and write a
folder, the mirror, and whatever arrives there is checked by them as if anybody had put it there.
"""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

from federated.errors import ConsiliumError, printable
from federated.exchange.audit import AuditLog
from federated.exchange.folder import EVERYONE
from federated.exchange.https.authentication import is_digest
from federated.exchange.https.calls import LEAVE, Backoff, BodyRefusedError, Caller
from federated.exchange.https.link_errors import LinkError, other_server
from federated.exchange.https.link_state import LinkState
from federated.exchange.https.outgoing import SMALL, TRIES, Outgoing
from federated.exchange.identity import Identity
from federated.exchange.journal import JournalledExchange, Position
from federated.exchange.message import MessageRefusedError, Signed, messages_in, open_message
from federated.files import PRIVATE, held

# In bytes: a piece that is asked for, and the small messages that come with news of them.
RANGE, WITH_NEWS = 2**24, 2**18
# In bytes: of the disk that stay free, and of a message.
FREE, MOST = 2**28, 2 * 2**30
# In seconds: how long the coordinator waits for news, how often a site says that it is there, and
# how often the mirror is looked at for what is to be sent.
POLL, HELLO, LOOK = 25.0, 30.0, 0.02
# In seconds: after how long a message that did not fit on the disk is asked for again.
AGAIN = 30.0


@dataclass(frozen=True)
class Greeting:
    """What a site tells of itself.

    Attributes:
        versions: of its programs, by name.
        code: the digest of its code.
        state: what it is doing, in a thousand bytes at most.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    code: str = ""
    state: str = ""


@dataclass(frozen=True)
class _Told:
    """A message that the coordinator tells of."""

    digest: str
    size: int
    sender: str
    recipient: str
    kind: str
    # The whole message, where it has come with the news of it.
    content: bytes = b""


def _of(told: _Told) -> dict[str, str | int]:
    """What the audit log says of a message."""
    return {
        "kind": told.kind, "sender": told.sender, "to": told.recipient, "bytes": told.size,
        "digest": told.digest,
    }  # fmt: skip


def _silent(text: str) -> None:
    """Say nothing."""


class Link:
    """A site's connection to its coordinator, to be used in a ``with`` statement.

    :meth:`run` keeps it up; :meth:`pull`, :meth:`push` and :meth:`hello` are its single steps, each
    of which may be called again whenever it has failed. One process at a time has the link of a
    mirror.

    Args:
        identity: the site, with its key.
        consortium: the consortium's id.
        url: the coordinator's address, ``https://host:port`` with or without a path.
        authority: the certificate (PEM) of the authority that is trusted alone; those that the
            machine trusts if empty.
        mirror: the site's folder of messages.
        audit: the site's log, in which every message in and out is written down.
        most: how many bytes a message may have that is fetched.
        say: is told what a person should see at once.
    """

    def __init__(
        self,
        identity: Identity,
        consortium: str,
        url: str,
        authority: str,
        mirror: JournalledExchange,
        audit: AuditLog,
        most: int = MOST,
        say: Callable[[str], None] = _silent,
    ) -> None:
        if not url.startswith("https://"):
            raise ConsiliumError(
                f"The coordinator's address is {printable(url, 200)!r}, and has to begin with "
                "https://. Take the one in the coordinator's kit."
            )
        self._me, self._consortium, self._most, self._say = identity, consortium, most, say
        self._mirror, self._audit = mirror, audit
        self._caller = Caller(identity, consortium, url, authority, audit, say)
        self._state = LinkState(mirror)
        self._outgoing = Outgoing(identity.name, self._caller, mirror, self._state, audit, say)
        # How many bytes of small messages are asked for along with the news of them.
        self._along = WITH_NEWS
        # How far the coordinator was asked beyond a message that does not fit on the disk; when it
        # is asked for that again; and which were put off.
        self._ahead: Position | None = None
        self._again = 0.0
        self._put_off: set[str] = set()
        self._stack = ExitStack()
        self._fetched = 0

    @property
    def moved(self) -> int:
        """Bytes that were moved, by which it is seen that a link that breaks off gets on."""
        return self._fetched + self._outgoing.moved

    def __enter__(self) -> Self:
        told = f"process {os.getpid()}"
        other = self._stack.enter_context(held(self._state.lock, told))
        if other is not None:
            self._stack.close()
            raise ConsiliumError(
                f"The messages in {self._mirror.root} are carried by {other} already. End that one "
                "first, or leave it to it."
            )
        self._mirror.recover()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._caller.close()
        self._stack.close()

    def hello(self, greeting: Greeting) -> dict[str, Any]:
        """Tell the coordinator how the site is.

        Returns:
            The coordinator's ``time`` in seconds since 1970, and its ``versions``.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
        """
        return hello(self._caller, greeting)

    def pull(self, wait: float = 0) -> int:
        """Fetch what is for this site.

        What does not fit on the disk is put off: what comes behind it arrives, and every half
        minute it is tried again.

        Args:
            wait: how many seconds the coordinator may wait for something, 25 at most.

        Returns:
            How many messages have arrived.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in. What has
                arrived before stays, and a part of a message is not lost.
        """
        if self._ahead is not None and time.monotonic() >= self._again:
            self._ahead = None
        try:
            told, after = self._news(self._ahead or self._state.position, wait)
            missing = [each for each in told if not self._state.is_here(each.digest)]
            # A message that is told of twice arrives once, and is missing no more then.
            fetched = [
                self._fetch(each) for each in missing if not self._state.is_here(each.digest)
            ]
        except LinkError as error:
            if error.cause == "broken":
                # What comes along comes again each time; what is asked for alone goes on.
                self._along = self._along // 2 if self._along >= 2 * SMALL else 0
            raise
        self._along = min(max(2 * self._along, SMALL), WITH_NEWS)
        self._move_to(after, is_whole=None not in fetched)
        return fetched.count(True)

    def _news(self, before: Position, wait: float) -> tuple[list[_Told], Position]:
        """What the coordinator tells of after a position, and the position after that.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
        """
        query = urlencode(
            {"after": before.offset, "epoch": before.epoch, "wait": int(wait), "most": self._along}
        )
        answer = self._caller.ask("GET", f"messages?{query}", wait=wait)
        self._fetched += len(answer.rest)
        try:
            told = list(_told(answer.value["messages"], answer.rest))
            return told, Position(str(answer.value["epoch"]), int(answer.value["next"]))
        except (TypeError, KeyError, ValueError, MessageRefusedError) as error:
            raise other_server(self._caller.url, 200) from error

    def _move_to(self, after: Position, is_whole: bool) -> None:
        """Go on from a position; only if nothing before it was put off, for good."""
        if not is_whole and self._ahead is None:
            self._again = time.monotonic() + AGAIN
        if is_whole and self._ahead is None:
            self._state.moved_to(after)
        else:
            self._ahead = after

    def push(self) -> int:
        """Bring the coordinator what this site has posted: see :meth:`Outgoing.push`.

        Returns:
            How many messages it has taken.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
        """
        return self._outgoing.push()

    def run(self, stop: threading.Event, greeting: Callable[[], Greeting] = Greeting) -> None:
        """Keep fetching, bringing and saying hello until it is asked to stop, whatever happens.

        What is wrong is said and written down once, and tried again, first soon and then every
        minute.
        """
        loops = (
            lambda: self.pull(POLL),
            self._push_soon,
            lambda: self._hello_soon(stop, greeting),
        )
        threads = [
            threading.Thread(target=self._keep, args=(loop, stop), daemon=True) for loop in loops
        ]
        for thread in threads:
            thread.start()
        stop.wait()
        self._caller.close()
        until = time.monotonic() + LEAVE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _push_soon(self) -> None:
        """Push as soon as the mirror has grown."""
        mark, until = self._mirror.journal.mark(), time.monotonic() + 1
        self.push()
        while self._mirror.journal.mark() == mark and time.monotonic() < until:
            time.sleep(LOOK)

    def _hello_soon(self, stop: threading.Event, greeting: Callable[[], Greeting]) -> None:
        self.hello(greeting())
        stop.wait(HELLO)

    def _keep(self, step: Callable[[], object], stop: threading.Event) -> None:
        """Do a step again and again."""
        backoff, said = Backoff(), ""
        while not stop.is_set():
            moved = self.moved
            try:
                step()
                backoff.reset()
                if said:
                    self._audit.add("link up", after=said)
                said = ""
            except Exception as error:
                if stop.is_set():
                    return
                if self.moved > moved:
                    backoff.reset()
                text = str(error) if isinstance(error, ConsiliumError) else repr(error)
                cause = error.cause if isinstance(error, LinkError) else type(error).__name__
                if cause != said and self.moved == moved:
                    self._audit.add("link down", reason=cause, said=text)
                    self._say(text)
                    said = cause
                stop.wait(backoff.seconds())

    def _fetch(self, told: _Told) -> bool | None:
        """Fetch one message, and put it into the mirror if it is what was told.

        Returns:
            Whether it has arrived; ``None`` where it does not fit on the disk.
        """
        why = self._unwanted(told)
        if not why and not self._fits(told):
            return None
        part = self._state.incoming(told.digest)
        for number in range(TRIES):
            if why:
                break
            if told.content and not number:
                self._take_along(part, told.content)
            else:
                self._download(told)
            try:
                signed = self._checked(part, told)
            except ConsiliumError as error:
                part.unlink(missing_ok=True)
                last = str(error).replace(str(part), told.digest[:16])
            else:
                self._mirror.adopt(part, signed)
                self._note("downloaded", told)
                return True
        self._note("download refused", told, said=why or last)
        return False

    def _unwanted(self, told: _Told) -> str:
        """Why a message is not fetched; nothing where it is."""
        if not is_digest(told.digest) or type(told.size) is not int:
            return "It has no digest or no size."
        if told.recipient not in (self._me.name, EVERYONE) or told.sender == self._me.name:
            return "It is not for this site."
        if not 0 < told.size <= self._most:
            return f"It has {told.size} bytes, and at most {self._most} are fetched."
        return ""

    def _fits(self, told: _Told) -> bool:
        """Whether the disk has room for a message; where it has none, that is said once."""
        part = self._state.incoming(told.digest)
        have = part.stat().st_size if part.exists() else 0
        if shutil.disk_usage(part.parent).free - max(told.size - have, 0) >= FREE:
            self._put_off.discard(told.digest)
            return True
        said = (
            f"The disk of {part.parent} is nearly full: a message of {told.size} bytes is to be "
            "fetched. Free some space; it is tried again."
        )
        if not self._put_off:
            self._say(said)
        if told.digest not in self._put_off:
            self._put_off.add(told.digest)
            self._audit.add("download put off", **_of(told), said=said)
        return False

    def _take_along(self, part: Path, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(part, flags, PRIVATE), "wb") as file:
            file.write(content)

    def _download(self, told: _Told) -> None:
        """Get the bytes of a message into its file, from where they broke off."""
        part = self._state.incoming(told.digest)
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE), "ab"
        ) as file:
            have = file.tell()
            if have > told.size:
                file.truncate(0)
                have = 0
            while have < told.size:
                end = min(have + RANGE, told.size)
                have += self._range(told.digest, have, end, file.write)
                file.flush()

    def _range(self, digest: str, start: int, end: int, write: Callable[[bytes], object]) -> int:
        headers, got = {"range": f"bytes={start}-{end - 1}"}, 0
        with self._caller.answer("GET", f"messages/{digest}", headers=headers) as response:
            if response.headers.get("content-range", "").partition("/")[0] != (
                f"bytes {start}-{end - 1}"
            ):
                raise other_server(self._caller.url, response.status_code)
            for content in self._caller.parts(response):
                content = content[: end - start - got]
                write(content)
                got += len(content)
                self._fetched += len(content)
        if not got:
            raise LinkError("broken", f"{self._caller.url} has sent nothing of a message.")
        return got

    def _checked(self, part: Path, told: _Told) -> Signed:
        """What a file that has arrived says that it is.

        Raises:
            ConsiliumError: it is not what was told of, or has no place in the mirror.
        """
        with open_message(part) as unread:
            header = unread.header
            found = (unread.signed.digest, header.sender, header.recipient, header.kind)
            if found != (told.digest, told.sender, told.recipient, told.kind):
                raise MessageRefusedError("other message", "It is another one than was told of.")
            if header.consortium != self._consortium:
                raise MessageRefusedError("other consortium", "It is of another consortium.")
            self._mirror.path(unread.signed)
            unread.check_body()
            return unread.signed

    def _note(self, event: str, told: _Told, **what: str) -> None:
        self._state.has_come(told.digest)
        self._audit.add(event, **_of(told), **what)


def _told(value: Any, rest: bytes) -> Iterator[_Told]:
    """The messages of which news tell, of which small ones stand behind the news themselves.

    Raises:
        TypeError, KeyError, ValueError, MessageRefusedError: they are none.
    """
    at = 0
    for each in value:
        if type(each) is not int:
            digest, sender = str(each["digest"]), str(each["sender"])
            yield _Told(digest, each["size"], sender, str(each["recipient"]), str(each["kind"]))
            continue
        content = rest[at : at + each]
        at += each
        ((signed, whole),) = messages_in(content, "that came with the news")
        header = signed.header
        yield _Told(
            signed.digest, each, header.sender, header.recipient, header.kind, content=whole
        )


def hello(caller: Caller, greeting: Greeting, check: bool = False) -> dict[str, Any]:
    """Say hello without a mirror; in a ``check``, so that the coordinator keeps nothing of it.

    Returns:
        The coordinator's ``time`` in seconds since 1970, and its ``versions``.

    Raises:
        LinkError: the coordinator was not reached, or does not let the site in.
    """
    told = {"versions": dict(greeting.versions), "code": greeting.code, "state": greeting.state}
    try:
        value = caller.ask(
            "POST", "hello?check=1" if check else "hello", json.dumps(told).encode()
        ).value
    except BodyRefusedError as error:
        raise LinkError("refused", f"The coordinator refuses this greeting: {error}") from error
    if not isinstance(value, dict):
        raise other_server(caller.url, 200)
    return value
