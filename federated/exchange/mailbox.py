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
from federated.exchange.folder import EVERYONE, Exchange, Place
from federated.exchange.identity import Identity, PublicIdentity
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

    def receive(self, topic: Topic, kind: str, sender: str, most: int) -> Message:
        """The message of a kind from a party, for this party or for all.

        Args:
            topic: the round that it has to belong to, with the state and the plan.
            kind: what it has to be.
            sender: who has to have signed it.
            most: how many bytes its body may have.

        Raises:
            MissingMessageError: none has arrived that counts; the message says what was refused.
        """
        counted: list[Message] = []
        refused: list[MessageRefusedError] = []
        for recipient in (self.me.name, EVERYONE):
            told = topic.kind(kind)
            place = Place(topic.run, topic.round, topic.attempt, recipient, told, sender)
            for found in self._opened(place, topic, kind, most):
                if isinstance(found, Message):
                    counted.append(found)
                else:
                    refused.append(found)
                    if len(refused) <= MOST_LINES:
                        self._refuse(topic, kind, sender, found)
        different = {message.signed.digest for message in counted}
        if len(different) > 1:
            error = MessageRefusedError(
                "duplicate",
                f"{sender} has sent {len(different)} different messages {topic.kind(kind)} in "
                f"round {topic.round} of run {topic.run}, of which none counts.",
            )
            self._refuse(topic, kind, sender, error)
            refused, counted = [error], []
        if not counted:
            said = f" What arrived was refused: {refused[-1]}" if refused else ""
            raise MissingMessageError(
                f"{self.me.name} has no message {topic.kind(kind)} from {sender} in round "
                f"{topic.round} of run {topic.run}.{said}"
            )
        return counted[0]

    def _opened(
        self, place: Place, topic: Topic, kind: str, most: int
    ) -> Iterator[Message | MessageRefusedError]:
        """The messages in a place, each read or refused."""
        for path in self.exchange.find(place):
            # Whoever has put it there may take it away again.
            with suppress(FileNotFoundError):
                try:
                    with open_message(path) as unread:
                        self._refuse_other(unread, place, topic, kind)
                        member = self._member(place.sender)
                        yield unread.read(member, most)
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
