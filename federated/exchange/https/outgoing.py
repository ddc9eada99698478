"""What a site sends: in which order, several small messages together, a large one in pieces.

What belongs to one attempt at a run is a lane. In a lane the order is kept in which messages were
posted, since a word that something is done comes after what it is of, which can be of another
round: keys are of round 0 in whichever round they are made anew. Small messages of other lanes pass
a large one.
"""

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlencode

from federated.errors import printable
from federated.exchange.audit import AuditLog
from federated.exchange.https.calls import Answer, BodyRefusedError, Caller
from federated.exchange.https.link_errors import LinkError, other_server
from federated.exchange.https.link_state import LinkState
from federated.exchange.journal import Entry, JournalledExchange, Position

# In bytes: a piece that is sent, at most and at least.
CHUNK, LEAST_CHUNK = 2**20, 2**14
# In bytes: a message that is sent together with others, at most; and how many go in one request.
SMALL, MOST_TOGETHER = LEAST_CHUNK, 64
# The refusals after which a message is sent again later.
LATER = (429, 507)
# What the audit log has of a refusal, and what the coordinator calls it.
SAID = (("said", "refused"), ("reason", "reason"))
# How often a message whose content is wrong is fetched or sent from its beginning.
TRIES = 3


class Outgoing:
    """What a site has posted in its mirror and the coordinator does not have yet.

    Args:
        site: the site's name.
        caller: makes its requests.
        mirror: the site's folder of messages.
        state: what is remembered of them.
        audit: the site's log, in which every message out is written down.
        say: is told what a person should see at once.
    """

    def __init__(
        self,
        site: str,
        caller: Caller,
        mirror: JournalledExchange,
        state: LinkState,
        audit: AuditLog,
        say: Callable[[str], None],
    ) -> None:
        self._me, self._caller, self._mirror, self._state = site, caller, mirror, state
        self._audit, self._say = audit, say
        # How far the mirror was read, and what of that is to be sent, by lane.
        self._read = Position()
        self._lanes: dict[str, deque[Entry]] = {}
        self._chunk, self._resumed = CHUNK, False
        self._taken = 0
        self.moved = 0

    def push(self) -> int:
        """Bring the coordinator what it does not have yet, the lane that has waited longest first.

        What the coordinator refuses is written down in the audit log and said, and not sent again.

        Returns:
            How many messages it has taken.

        Raises:
            LinkError: the coordinator was not reached, or does not let the site in.
        """
        before = self._taken
        while lane := self._first_lane():
            if not self._bring_small():
                self._bring(self._lanes[lane][0], lane)
        return self._taken - before

    def _first_lane(self) -> str:
        """The attempt at a run of which something was to be sent first; empty for none."""
        while True:
            entries, position = self._mirror.entries(self._read)
            for entry in entries:
                if entry.sender == self._me:
                    # The journal does not tell the attempt; it is a folder of each round's.
                    run, _, attempt = entry.path.split("/")[:3]
                    lane = f"{run}/{attempt}"
                    self._lanes.setdefault(lane, deque()).append(entry)
            if position == self._read:
                break
            self._read = position
        for lane, waiting in list(self._lanes.items()):
            while waiting and self._state.is_uploaded(waiting[0].digest):
                waiting.popleft()
            if not waiting:
                del self._lanes[lane]
        return next(iter(self._lanes), "")

    def _bring_small(self, beside: str = "") -> bool:
        """Bring together what is small and first of each lane but ``beside``; whether there was.

        Raises:
            LinkError: the coordinator was not reached, or has no room for them now.
        """
        batch: list[tuple[Entry, bytes]] = []
        known: set[str] = set()
        room, gone = self._chunk, False
        for lane, waiting in self._lanes.items():
            for entry in () if lane == beside else list(waiting):
                if self._state.is_uploaded(entry.digest) or entry.digest in known:
                    continue
                if entry.size > min(SMALL, room) or len(batch) >= MOST_TOGETHER:
                    break
                try:
                    batch.append((entry, self._content(entry)))
                    known.add(entry.digest)
                    room -= entry.size
                except FileNotFoundError:
                    self._sent_off("not uploaded", entry)
                    gone = True
        if batch:
            self._bring_together(batch)
        return bool(batch) or gone

    def _content(self, entry: Entry) -> bytes:
        path = self._mirror.root / entry.path
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read(entry.size + 1)

    def _bring_together(self, batch: list[tuple[Entry, bytes]]) -> None:
        """Bring several whole messages in one request."""
        content = b"".join(content for _, content in batch)
        try:
            said = self._sent_piece("POST", "outbox", content).value
        except BodyRefusedError:
            # One that is none spoils all of them: each is brought alone, and told of alone.
            for entry, _ in batch:
                self._bring(entry)
            return
        if not isinstance(said, list) or not 0 < len(said) <= len(batch):
            raise other_server(self._caller.url, 200)
        self.moved += len(content)
        for (entry, _), told in zip(batch, said, strict=False):
            if not isinstance(told, dict):
                raise other_server(self._caller.url, 200)
            if told.get("status") in LATER:
                why = printable(str(told.get("refused", "")), 400)
                raise LinkError("busy", f"{self._caller.url} takes nothing now: {why}")
            refused = {key: printable(str(told.get(name, "")), 400) for key, name in SAID if told}
            self._sent_off("upload refused" if told else "uploaded", entry, **refused)

    def _bring(self, entry: Entry, lane: str = "") -> None:
        """Bring one message, if it is still here."""
        said: dict[str, str] = {}
        for _ in range(TRIES):
            try:
                self._upload(entry, lane)
                event, said = "uploaded", {}
                break
            except FileNotFoundError:
                event = "not uploaded"
                break
            except BodyRefusedError as error:
                event, said = "upload refused", {"said": str(error), "reason": error.reason}
                # A part that was there before may have been damaged with the machine.
                if not self._resumed and error.reason not in ("other body", "other total"):
                    break
        self._sent_off(event, entry, **said)

    def _sent_off(self, event: str, entry: Entry, **said: str) -> None:
        """Note what became of a message that this site has sent."""
        self._audit.add(
            event, run=entry.run, kind=entry.kind, to=entry.recipient, bytes=entry.size,
            digest=entry.digest, **said,
        )  # fmt: skip
        self._state.has_gone(entry.digest)
        self._taken += event == "uploaded"
        if said:
            self._say(
                f"The coordinator refuses the {entry.kind} of run {entry.run} that this site has "
                f"sent: {said['said']}"
            )

    def _upload(self, entry: Entry, lane: str) -> None:
        """Send a message in pieces; between them small ones of other lanes are sent."""
        target, whole = f"outbox/{entry.digest}", False
        # A message of one piece is sent at once; of a longer one something may be there.
        have = 0 if entry.size <= self._chunk else self._progress(target)
        self._resumed = have > 0
        path = self._mirror.root / entry.path
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            while not whole:
                file.seek(min(have, entry.size))
                content = file.read(self._chunk)
                query = urlencode({"offset": have, "total": entry.size, "kind": entry.kind})
                answer = self._sent_piece("PATCH", f"{target}?{query}", content).value
                if not isinstance(answer, dict) or not {"have", "complete"} <= answer.keys():
                    raise other_server(self._caller.url, 200)
                have, whole = int(answer["have"]), bool(answer["complete"])
                self.moved += len(content)
                if not whole and self._first_lane():
                    self._bring_small(beside=lane)

    def _progress(self, target: str) -> int:
        headers = self._caller.ask("HEAD", target).headers
        with suppress(ValueError):
            return int(headers.get("upload-offset", "0"))
        return 0

    def _sent_piece(self, method: str, target: str, content: bytes) -> Answer:
        """Send a piece; the next one is shorter if this one does not get through, or longer."""
        try:
            answer = self._caller.ask(method, target, content)
        except LinkError as error:
            if error.cause == "broken":
                self._chunk = max(self._chunk // 2, LEAST_CHUNK)
            raise
        self._chunk = min(self._chunk * 2, CHUNK)
        return answer
