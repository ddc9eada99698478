"""A bundle: signed messages of several parties that the coordinator passes on as they are.

Whoever gets a bundle checks each message in it for itself: the coordinator can leave one out, and
can change none.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from federated.errors import ConsiliumError, RefusalError
from federated.exchange.enrolment import Enrolment
from federated.exchange.message import (
    Message,
    MessageRefusedError,
    Signed,
    Topic,
    differences,
)


def pack_bundle(messages: Sequence[Message]) -> bytes:
    """The bundle as the body of a message."""
    parts = [
        message.signed.to_json() | {"body": b64encode(message.body).decode()}
        for message in messages
    ]
    return json.dumps(parts).encode()


def open_bundle(
    content: bytes, topic: Topic, kind: str, recipient: str, members: Enrolment
) -> Mapping[str, bytes]:
    """The bodies of the messages in a bundle, by their senders.

    Args:
        content: the bundle.
        topic: what all the messages have to belong to.
        kind: what they have to be.
        recipient: who they were for.
        members: who may have sent one.

    Raises:
        RefusalError: a message is not signed by a member, is another one than is expected, or is
            one of two of the same party. Then the whole bundle is refused.
    """
    bodies: dict[str, bytes] = {}
    try:
        parts = [(part.pop("body"), part) for part in json.loads(content)]
        for text, part in parts:
            body, signed = b64decode(text, validate=True), Signed.from_json(part, f"the {kind}s")
            sender = _checked(signed, body, topic, kind, recipient, members)
            if sender in bodies:
                raise MessageRefusedError("duplicate", f"{sender} is in it twice")
            bodies[sender] = body
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RefusalError(
            f"The messages {kind} of round {topic.round} that the coordinator passes on are none "
            f"({error!r:.100})."
        ) from error
    return bodies


def _checked(
    signed: Signed, body: bytes, topic: Topic, kind: str, recipient: str, members: Enrolment
) -> str:
    """The sender of a message, if it is what is expected."""
    sender, reason = signed.header.sender, None
    member = members.members.get(sender)
    if member is None or member.standing != "enrolled":
        reason = "who is not enrolled"
    elif differences(signed.header, topic, kind, recipient):
        reason = "which is of another round, state, plan or kind"
    elif not signed.is_from(member.identity):
        reason = "which that site has not signed"
    elif not signed.is_of(body):
        reason = "whose body is not the one that was signed"
    if reason:
        raise ConsiliumError(
            f"Among the messages {kind} of round {topic.round} that the coordinator passes on is "
            f"one of {sender!r:.80}, {reason}. None of them counts."
        )
    return sender
