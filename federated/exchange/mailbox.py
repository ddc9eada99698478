"""What a party takes from an exchange, and what it puts there.

A message counts if it is of this consortium, run and round, of the kind and from the party that is
expected, for this party, starts from the state and answers to the plan that are expected, is signed
by a member who is enrolled and not suspended, is no longer than its kind may be, and is the only
one. Everything else is refused with a line in the audit log, and does no more harm than that: who
has sent nothing that counts has not responded.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from federated.errors import RefusalError
from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE, Exchange, Place, file_name
from federated.exchange.identity import COORDINATOR, Identity, PublicIdentity
from federated.exchange.message import (
    Message,
    MessageRefusedError,
    Topic,
    Unread,
    differences,
    open_message,
    sign,
)

# In the audit log, of what lies in one place, however much somebody writes there.
MOST_LINES = 16
# Why two different messages are refused that one party has signed for one place.
DUPLICATE = "duplicate"


class MissingMessageError(RefusalError):
    """Nothing that counts has arrived from a party."""


@dataclass(frozen=True)
class Mailbox:
    """An exchange as one party sees it.

    Attributes:
        me: the party.
        members: whom it knows.
        exchange: where messages lie.
        audit: where it writes down what it has refused, sent and taken.
    """

    me: Identity
    members: Enrolment
    exchange: Exchange
    audit: AuditLog

    def send(self, topic: Topic, kind: str, body: bytes, recipient: str = EVERYONE) -> Message:
        """Sign a message, post it, and return it."""
        message = sign(self.me, topic, kind, recipient, body)
        self.exchange.post(message)
        self.audit.add(
            "sent", run=topic.run, round=topic.round, kind=topic.kind(kind), to=recipient,
            bytes=message.size, sha256=message.header.sha256,
        )  # fmt: skip
        return message

    def receive(
        self, topic: Topic, kind: str, sender: str, most: int, for_all: bool = False
    ) -> Message:
        """The message of a kind from a party, for this party or for all.

        Of what sites tell all of them, only kinds that are for all count at the coordinator, which
        it asks for by ``for_all``: it passes on what it has, and a site refuses what is passed on
        and was not addressed to the coordinator, together with all that came with it.

        Args:
            topic: the round that it has to belong to, with the state and the plan.
            kind: what it has to be.
            sender: who has to have signed it.
            most: how many bytes its body may have.
            for_all: whether it has to be the same for everyone; what the sender tells this party
                alone is not looked at then, so that it cannot make this one see another thing.

        Raises:
            MissingMessageError: none has arrived that counts; the message says what was refused.
        """
        counted: Message | None = None
        last: MessageRefusedError | None = None
        for number, found in enumerate(self._found(topic, kind, sender, most, for_all)):
            if isinstance(found, MessageRefusedError):
                last = found
                if number < MOST_LINES or found.reason == DUPLICATE:
                    self._refuse(topic, kind, sender, found)
                if found.reason == DUPLICATE:
                    # One that lies is not read further: it may have signed any number of messages.
                    counted = None
                    break
            else:
                counted = found
        if counted is None:
            why = f" What arrived was refused: {last}" if last else ""
            raise MissingMessageError(
                f"{self.me.name} has no message {topic.kind(kind)} from {sender} in round "
                f"{topic.round} of run {topic.run}.{why}"
            )
        return counted

    def _found(
        self, topic: Topic, kind: str, sender: str, most: int, for_all: bool
    ) -> Iterator[Message | MessageRefusedError]:
        """What lies where a message of a party for this one, or for all, is to lie.

        However much somebody else puts there, all of it is looked at, so that nothing is hidden by
        it; of what the party has not signed, no more than the header is read.
        """
        read: dict[str, bool] = {}
        places = (self.me.name, EVERYONE) if self.me.name != COORDINATOR else (COORDINATOR,)
        for recipient in (EVERYONE,) if for_all else places:
            told = topic.kind(kind)
            place = Place(topic.run, topic.round, topic.attempt, recipient, told, sender)
            yield from self._opened(place, topic, kind, most, read)

    def _opened(
        self, place: Place, topic: Topic, kind: str, most: int, read: dict[str, bool]
    ) -> Iterator[Message | MessageRefusedError]:
        """The messages in a place, each read or refused; of copies one is read.

        Args:
            place: where they lie.
            topic: the round that they have to belong to.
            kind: what they have to be.
            most: how many bytes a body may have.
            read: by digest, whether what the party has signed was read and counts; it is added to.
        """
        for path in self.exchange.find(place):
            # Whoever has put it there may take it away again.
            with suppress(FileNotFoundError):
                try:
                    with open_message(path) as unread:
                        self._refuse_other(unread, place, topic, kind)
                        unread.refuse_other_signer(self._member(place.sender))
                        digest, own_name = unread.signed.digest, file_name(unread.signed)
                        # A copy with another body takes nothing from what lies where it should.
                        if read.get(digest) or (digest in read and path.name != own_name):
                            said = f"The message {path} is refused: it is a copy of another one."
                            raise MessageRefusedError("copy", said)
                        if unread.header.length <= most:
                            if {*read} - {digest}:
                                raise _duplicate(topic, kind, place.sender)
                            read[digest] = False
                        message = unread.whole(most)
                        read[digest] = True
                        yield message
                except MessageRefusedError as error:
                    yield error

    def _member(self, name: str) -> PublicIdentity:
        standing = self.members.standing(name)
        if standing != "enrolled":
            reason = "suspended" if standing else "not enrolled"
            raise MessageRefusedError(reason, f"A message from {name} is refused: it is {reason}.")
        return self.members.members[name].identity

    def _refuse_other(self, unread: Unread, place: Place, topic: Topic, kind: str) -> None:
        """Refuse a message that is not what is looked for here.

        Raises:
            MessageRefusedError: it is not; the message names every difference.
        """
        header = unread.header
        wrong = differences(header, topic, kind, place.recipient)
        if header.sender != place.sender:
            wrong["sender"] = (header.sender, place.sender)
        if wrong:
            said = "; ".join(
                f"its {name} is {found!r:.70}, and {expected!r:.70} is expected"
                for name, (found, expected) in wrong.items()
            )
            raise MessageRefusedError(
                f"other {next(iter(wrong))}", f"The message {unread.where} is refused: {said}."
            )

    def _refuse(self, topic: Topic, kind: str, sender: str, error: MessageRefusedError) -> None:
        self.audit.add(
            "refused", run=topic.run, round=topic.round, kind=topic.kind(kind), sender=sender,
            reason=error.reason, said=str(error),
        )  # fmt: skip


def _duplicate(topic: Topic, kind: str, sender: str) -> MessageRefusedError:
    return MessageRefusedError(
        DUPLICATE,
        f"{sender} has sent 2 different messages {topic.kind(kind)} in round {topic.round} of run "
        f"{topic.run}, of which none counts.",
    )
