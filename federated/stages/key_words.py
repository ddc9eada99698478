"""What sites sign of the run's key, and how the coordinator passes it on.

Several makers may be tried in one attempt, and of two different messages of one site in one place
none counts. So a site's word on a key has a place for each maker: its kind has the maker's number
in the plan of the run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from federated.errors import RefusalError, printable
from federated.exchange import kinds
from federated.exchange.bundle import open_bundle, pack_bundle
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message, Topic
from federated.protection.keys import PublicContext

# In characters: of the reason for which a site takes no key, so that any fits its message.
MOST_REASON = 600


@dataclass(frozen=True)
class Held:
    """A run's key in an attempt, and which sites have signed that they have it."""

    public: PublicContext
    sites: frozenset[str]


def held_kind(sites: Sequence[str], maker: str) -> str:
    """The kind of a site's word on the key of a maker, which is one of the run's ``sites``."""
    return f"{kinds.HELD}{list(sites).index(maker)}"


def told_of(public: PublicContext) -> bytes:
    """What a maker tells all of a key, and each other site signs that has it."""
    return json.dumps(public.to_json(), sort_keys=True).encode()


def refusal(why: str) -> bytes:
    """What a site signs that takes no key from a maker."""
    return json.dumps({"refused": printable(why)[:MOST_REASON]}).encode()


def refused_why(body: bytes) -> str | None:
    """Why a site takes no key, by what it has signed; ``None`` where it has not said so."""
    try:
        value: Any = json.loads(body)
        why = value["refused"] if value.keys() == {"refused"} else None
    except (ValueError, AttributeError, RecursionError):
        return None
    return printable(why)[:MOST_REASON] if isinstance(why, str) else None


def pack_roster(maker: str, messages: Sequence[Message]) -> bytes:
    """The words of several sites on the key of a maker, as the coordinator passes them on."""
    return maker.encode() + b"\n" + pack_bundle(messages)


def open_roster(
    content: bytes, topic: Topic, sites: Sequence[str], members: Enrolment
) -> Mapping[str, bytes]:
    """What sites have signed of the key of one maker, by site.

    Args:
        content: what :func:`pack_roster` gave.
        topic: of the attempt, before the first round.
        sites: those of the run, of which the maker is one.
        members: who may have signed.

    Raises:
        RefusalError: it is something else, or has a word that its site has not signed.
    """
    name, _, bundle = content.partition(b"\n")
    maker = name[:400].decode(errors="replace")
    if maker not in sites:
        raise RefusalError(
            "What the coordinator passes on of the run's key is refused: it is said to be made by "
            f"{printable(maker)!r:.80}, which is none of the sites of the run."
        )
    return open_bundle(bundle, topic, held_kind(sites, maker), COORDINATOR, members)
