"""The application at the coordinator: sites ask what is for them, fetch it, and bring their own.

It keeps nothing but what lies in the exchange, the pieces of unfinished uploads, and when each site
said hello last: it can be killed at any moment.
"""

import asyncio
import json
import os
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from typing import Any, BinaryIO

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from federated.errors import ConsiliumError
from federated.exchange.enrolment import Member
from federated.exchange.folder import EVERYONE
from federated.exchange.https.authentication import (
    PREFIX,
    TOLD,
    Gate,
    RequestRefusedError,
    Stamp,
    is_digest,
)
from federated.exchange.https.bell import Bell
from federated.exchange.https.catalogue import Catalogue, is_for
from federated.exchange.https.office import Office, RefusalLog
from federated.exchange.https.uploads import Chunk, Uploads
from federated.exchange.journal import Entry, Position
from federated.exchange.message import MessageRefusedError, messages_in
from federated.files import PRIVATE, atomic_path

# In bytes.
MOST_HELLO = 4096
MOST_STATE = 1024
BLOCK = 2**18
LARGEST = 2**53
# In bytes: a message that is sent along with the news of it, at most, and all of them together.
SMALL, MOST_WITH_NEWS = 2**14, 2**18
# How many messages one request may bring.
MOST_TOGETHER = 64
# In seconds: how long a body that is thrown away may take.
DRAIN = 10

# A line of JSON, and whole messages behind it.
NEWS = "application/octet-stream"
# The refusals after which a site may send the same again.
LATER = (429, 507)

Answer = Callable[[Request, Member, Stamp], Awaitable[Response]]


def exchange_app(office: Office) -> Starlette:
    """The application; it can be mounted below any path."""
    desk, chunk = _Desk(office), office.limits.chunk
    routes = [
        Route(f"{PREFIX}messages", desk.guarded(desk.messages), methods=["GET"]),
        Route(f"{PREFIX}messages/{{digest}}", desk.guarded(desk.message), methods=["GET"]),
        Route(f"{PREFIX}outbox", desk.guarded(desk.together, POST=chunk), methods=["POST"]),
        Route(
            f"{PREFIX}outbox/{{digest}}",
            desk.guarded(desk.outbox, PATCH=chunk),
            methods=["HEAD", "PATCH"],
        ),
        Route(f"{PREFIX}hello", desk.guarded(desk.hello, POST=MOST_HELLO), methods=["POST"]),
        Route(f"{PREFIX}{{path:path}}", desk.guarded(desk.nothing)),
    ]
    return Starlette(routes=routes)


class _Desk:
    """What answers requests."""

    def __init__(self, office: Office) -> None:
        office.exchange.recover()
        self._office = office
        self._gate = Gate(office)
        self._catalogue = Catalogue(office.exchange)
        self._uploads = Uploads(office, self._catalogue)
        self._bell = Bell(office.exchange.journal.mark)
        self._refusals = RefusalLog(office.audit, office.limits.audit_lines, office.clock)
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._polls: defaultdict[str, deque[asyncio.Event]] = defaultdict(deque)

    def guarded(self, answer: Answer, **most: int) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that answers enrolled sites alone; ``most`` is a body's length by method."""

        async def endpoint(request: Request) -> Response:
            try:
                target = request.scope["path"].rsplit(PREFIX, 1)[1]
                if query := request.scope["query_string"].decode("latin-1"):
                    target = f"{target}?{query}"
                member, stamp = self._gate.enter(request.method, target, request.headers)
                self._refuse_body(request, member, most.get(request.method, 0))
                return await answer(request, member, stamp)
            except RequestRefusedError as error:
                self._write_down(request, error)
                return await self._refusal(request, error)
            except ConsiliumError as error:
                self._refusals.add("", "error", said=str(error))
                return JSONResponse({"reason": "error"}, 500)

        return endpoint

    def _write_down(self, request: Request, error: RequestRefusedError) -> None:
        address = request.client.host if request.client else ""
        self._refusals.add(
            error.site, error.reason, address=address, method=request.method,
            path=request.scope["path"][:200], said=str(error.told.get("refused", "")),
        )  # fmt: skip

    def _refuse_body(self, request: Request, member: Member, most: int) -> None:
        """Refuse a body by its length alone.

        Raises:
            RequestRefusedError: it is too long, or does not say how long it is.
        """
        if "transfer-encoding" in request.headers or _length(request) > most:
            raise RequestRefusedError(
                413, "body too large", member.identity.name, reason="body too large",
                refused=f"The body of a request has at most {most} bytes, and says how many.",
            )  # fmt: skip

    async def _refusal(self, request: Request, error: RequestRefusedError) -> Response:
        """The answer to a request that is refused; a short body is read first, and thrown away.

        Or the connection might be reset before the site has read the answer.
        """
        is_short = _length(request) <= self._office.limits.chunk
        if is_short and "transfer-encoding" not in request.headers and error.status != 408:
            # Where the body was read before, there is no stream any more.
            with suppress(TimeoutError, ClientDisconnect, RuntimeError):
                async with asyncio.timeout(DRAIN):
                    async for _ in request.stream():
                        pass
        # An answer to HEAD has no body.
        headers = {TOLD: json.dumps(error.told)} if request.method == "HEAD" else None
        return JSONResponse(error.told, error.status, headers)

    async def _body(self, request: Request, member: Member, stamp: Stamp) -> bytes:
        """The body, once it is found to be the one that was signed.

        Raises:
            RequestRefusedError: it is another one, or does not arrive.
        """
        site, content = member.identity.name, bytearray()
        try:
            async with asyncio.timeout(self._office.limits.body):
                async for part in request.stream():
                    content += part
        except (TimeoutError, ClientDisconnect) as error:
            raise RequestRefusedError(408, "body missing", site, reason="slow") from error
        if sha256(content).hexdigest() != stamp.body:
            raise RequestRefusedError(
                422, "other body", site, reason="other body",
                refused="The body is not the one that was signed; it was damaged on the way.",
            )  # fmt: skip
        return bytes(content)

    async def messages(self, request: Request, member: Member, _: Stamp) -> Response:
        """What is for a site, as soon as there is something; small messages themselves with it."""
        site, query = member.identity.name, request.query_params
        most = min(_number(query.get("most", "0"), site), MOST_WITH_NEWS)
        position = Position(query.get("epoch", ""), _number(query.get("after", "0"), site))
        wait = min(_number(query.get("wait", "0"), site), self._office.limits.poll)
        until = asyncio.get_running_loop().time() + wait
        with self._polling(site) as superseded:
            while True:
                mark = self._office.exchange.journal.mark()
                mine, further = await asyncio.to_thread(self._news, position, site)
                left = until - asyncio.get_running_loop().time()
                if mine or left <= 0 or superseded.is_set() or await request.is_disconnected():
                    break
                if further == position:
                    # Now and then for the site may be gone.
                    await self._bell.wait(mark, min(left, 0.25))
                position = further
        told, content = await asyncio.to_thread(self._told, mine, most)
        news = {"epoch": further.epoch, "next": further.offset, "messages": told}
        line = json.dumps(news, separators=(",", ":")).encode()
        return Response(line + b"\n" + content if content else line, media_type=NEWS)

    def _told(self, entries: list[Entry], most: int) -> tuple[list[dict[str, Any] | int], bytes]:
        """What is told of messages, and the small ones themselves, ``most`` bytes at most.

        Of a message that is sent along no more is told than its length.
        """
        told: list[dict[str, Any] | int] = []
        sent, room = [], most
        for entry in entries:
            content = self._small(entry) if entry.size <= min(SMALL, room) else b""
            if content:
                sent.append(content)
                room -= entry.size
            about = {k: v for k, v in asdict(entry).items() if k not in ("path", "run")}
            told.append(entry.size if content else about)
        return told, b"".join(sent)

    def _small(self, entry: Entry) -> bytes:
        """The file of a small message; nothing where another one lies there."""
        file = self._catalogue.open(entry)
        if file is None:
            return b""
        with file, suppress(MessageRefusedError, OSError):
            content = file.read(SMALL)
            if [signed.digest for signed, _ in messages_in(content, "")] == [entry.digest]:
                return content
        return b""

    def _news(self, position: Position, site: str) -> tuple[list[Entry], Position]:
        """What was put here for a site after a position, and the position after it."""
        found, further = self._office.exchange.journal.read(position)
        # Files are looked for last: of a long journal few may be for the site.
        there = self._office.exchange.is_there
        return [entry for entry in found if is_for(entry, site) and there(entry)], further

    @contextmanager
    def _polling(self, site: str) -> Iterator[asyncio.Event]:
        """Count a long poll of a site; where there are too many, the oldest has to end."""
        polls, superseded = self._polls[site], asyncio.Event()
        polls.append(superseded)
        if len(polls) > self._office.limits.polls:
            polls.popleft().set()
        try:
            yield superseded
        finally:
            if superseded in polls:
                polls.remove(superseded)

    async def message(self, request: Request, member: Member, _: Stamp) -> Response:
        """A message's file, or a part of it."""
        site, digest = member.identity.name, request.path_params["digest"]
        entry = self._catalogue.find(digest)
        file = None
        if entry and (entry.recipient in (site, EVERYONE) or entry.sender == site):
            file = self._catalogue.open(entry)
        if entry is None or file is None:
            reason = "no message" if entry is None else "another's message"
            raise RequestRefusedError(404, reason, site, reason="no message")
        headers = {"etag": f'"{digest}"', "accept-ranges": "bytes", "cache-control": "no-store"}
        try:
            start, end = _range(request.headers.get("range"), entry.size)
        except ValueError as error:
            file.close()
            raise RequestRefusedError(416, "bad range", site, reason="bad range") from error
        headers["content-length"] = str(end - start)
        headers["content-range"] = f"bytes {start}-{end - 1}/{entry.size}"
        status = 206 if "range" in request.headers else 200
        return StreamingResponse(
            _read(file, start, end), status, headers, media_type="application/octet-stream"
        )

    async def outbox(self, request: Request, member: Member, stamp: Stamp) -> Response:
        """How much of a message is here; or a piece of it arrives."""
        site, digest = member.identity.name, request.path_params["digest"]
        if not is_digest(digest):
            raise RequestRefusedError(404, "no digest", site, reason="no digest")
        if request.method == "HEAD":
            have, is_whole = self._uploads.progress(site, digest)
            return Response(
                headers={"upload-offset": str(have), "upload-complete": str(int(is_whole))}
            )
        query = request.query_params
        chunk = Chunk(
            digest, query.get("kind", ""), _number(query.get("offset", ""), site),
            _length(request), _number(query.get("total", ""), site),
        )  # fmt: skip
        async with self._writing[site]:
            if not self._uploads.progress(site, digest)[1]:
                await asyncio.to_thread(self._uploads.admit, site, chunk)
        content = await self._body(request, member, stamp)
        async with self._writing[site]:
            have, is_whole = await asyncio.to_thread(self._uploads.add, member, chunk, content)
        return JSONResponse({"have": have, "complete": is_whole})

    async def together(self, request: Request, member: Member, stamp: Stamp) -> Response:
        """Several small messages arrive, each whole; it is said of each what became of it.

        A message that the site can send later, when there is room again, ends the answer: those
        behind it are not looked at.
        """
        site = member.identity.name
        content = await self._body(request, member, stamp)
        try:
            messages = list(islice(messages_in(content, "of this request"), MOST_TOGETHER))
        except MessageRefusedError as error:
            raise RequestRefusedError(
                422, error.reason, site, reason=error.reason, refused=str(error)
            ) from error
        said: list[dict[str, Any]] = []
        async with self._writing[site]:
            for signed, whole in messages:
                try:
                    await asyncio.to_thread(self._uploads.take, member, signed, whole)
                    said.append({})
                except RequestRefusedError as error:
                    self._write_down(request, error)
                    said.append(error.told | {"status": error.status})
                    if error.status in LATER:
                        break
        return JSONResponse(said)

    async def hello(self, request: Request, member: Member, stamp: Stamp) -> Response:
        """A site tells how it is, and is told the time here.

        Of one that only checks whether it could take part nothing is kept: a run would wait for it.
        """
        site = member.identity.name
        content = await self._body(request, member, stamp)
        try:
            told = json.loads(content)
            if not _is_greeting(told):
                raise ValueError("it is no greeting")
        except (ValueError, RecursionError) as error:
            raise RequestRefusedError(
                422, "bad greeting", site, reason="bad greeting",
                refused="A greeting is JSON with versions, code and state, and nothing else.",
            ) from error  # fmt: skip
        now = datetime.fromtimestamp(self._office.clock(), UTC).isoformat(timespec="milliseconds")
        if "check" not in request.query_params:
            with atomic_path(self._office.seen / f"{site}.json", PRIVATE, durable=False) as path:
                path.write_text(json.dumps({"site": site, "time": now} | told, indent=2) + "\n")
        return JSONResponse({"time": self._office.clock(), "versions": dict(self._office.versions)})

    async def nothing(self, _: Request, member: Member, __: Stamp) -> Response:
        """What is asked for is nothing."""
        raise RequestRefusedError(404, "no such path", member.identity.name, reason="no such path")


def _length(request: Request) -> int:
    """How long a body says that it is."""
    text = request.headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 17 else LARGEST


def _number(text: str, site: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 17:
        return int(text)
    raise RequestRefusedError(422, "bad query", site, reason="bad query")


def _range(text: str | None, size: int) -> tuple[int, int]:
    """The first byte that is asked for, and the one after the last.

    Raises:
        ValueError: it is not one range, or not one within the file.
    """
    if text is None:
        return 0, size
    unit, _, numbers = text.partition("=")
    first, dash, last = numbers.partition("-")
    if unit != "bytes" or not dash or not (first.isdigit() and (last.isdigit() or not last)):
        raise ValueError(text)
    start, end = int(first), min(int(last) + 1 if last else size, size)
    if start >= end:
        raise ValueError(text)
    return start, end


async def _read(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of a file in pieces."""
    with file:
        while start < end:
            size = min(BLOCK, end - start)
            content = await asyncio.to_thread(os.pread, file.fileno(), size, start)
            if not content:
                return  # it was cut short meanwhile; so is the answer
            yield content
            start += len(content)


def _is_greeting(told: object) -> bool:
    if not isinstance(told, dict) or told.keys() != {"versions", "code", "state"}:
        return False
    versions, texts = told["versions"], (told["code"], told["state"])
    if not isinstance(versions, dict) or not all(isinstance(text, str) for text in texts):
        return False
    return len(told["state"].encode()) <= MOST_STATE and all(
        isinstance(value, str) for value in versions.values()
    )
