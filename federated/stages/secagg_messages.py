"""What travels in a round of SecAgg+ beside the updates, and what all parties make of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from federated.errors import ConsiliumError, RefusalError
from federated.exchange.message import Topic
from federated.protection import MaskedSums
from federated.protection.secagg.recovery import Answer
from federated.protection.secagg.round import Advertised, Round, Share
from federated.rounds.context import RunContext
from federated.stages.named_sums import senders


@dataclass(frozen=True)
class Roster:
    """Who takes part in a round: who has advertised which keys, and who has shared its secrets.

    ``dealt`` is, at the coordinator, what each of ``sharing`` has dealt to whom, as it was passed
    on.
    """

    advertised: Mapping[str, Advertised]
    sharing: tuple[str, ...] = ()
    dealt: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def missing(self, responded: Sequence[str]) -> tuple[str, ...]:
        """The sites that have shared their secrets, and are not among those that responded."""
        return tuple(site for site in self.sharing if site not in responded)


def masked_round(run: RunContext, advertised: Sequence[str], topic: Topic) -> Round:
    """What all parties know of a sum in a round of a run, once the keys are advertised.

    Raises:
        RefusalError: keys are told of sites that were not selected, whose holders could be anybody.
    """
    experiment, number = run.experiment, topic.round
    protection, bits = experiment.protection, experiment.compression.bits
    assert isinstance(protection, MaskedSums)
    assert bits is not None
    selected = senders(run, topic)
    names = sorted(advertised)
    unknown = [name for name in names if name not in selected]
    if unknown:
        raise RefusalError(
            f"Round {number} is told the keys of {', '.join(unknown)}, not selected in it; "
            "who has those could hold shares of everyone's. No site goes on. Resume the run; the "
            "round begins anew."
        )
    begun = protection.begin(
        run.run_id,
        number,
        names,
        len(selected),
        experiment.seed,
        bits,
        topic.attempt,
        topic.state,
    )
    return replace(begun, sum=topic.sum)


def parse_advertised(body: bytes) -> Advertised:
    """The public keys of a site, from what it has sent.

    Raises:
        RefusalError: it is something else.
    """
    try:
        return Advertised(**unpack(body))
    except TypeError as error:
        raise RefusalError(f"Keys of a round are not as keys are ({error}).") from error


def pack_answer(answer: Answer) -> bytes:
    """The shares that a site gives, as it sends them."""
    shares = {
        peer: {"kind": share.kind, "value": share.value.hex()}
        for peer, share in answer.shares.items()
    }
    told = {"shares": shares, "wrongly_dealt": list(answer.wrongly_dealt)}
    return json.dumps(told).encode()


def parse_answer(body: bytes, site: str) -> Answer:
    """The shares that a site gives, from what it has sent.

    Raises:
        ConsiliumError: it is something else.
    """
    try:
        told = json.loads(body)
        shares = {
            str(peer): Share(share["kind"], bytes.fromhex(share["value"]))
            for peer, share in told["shares"].items()
        }
        return Answer(shares, tuple(map(str, told["wrongly_dealt"])))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConsiliumError(f"The answer of {site} holds no shares ({error!r:.80}).") from error


def parse_names(body: bytes, what: str) -> list[str]:
    """A list of names, from what the coordinator has sent.

    Raises:
        RefusalError: it is something else.
    """
    try:
        names = json.loads(body)
        if not isinstance(names, list) or not all(type(name) is str for name in names):
            raise ValueError("they are no names")
    except (ValueError, RecursionError) as error:
        raise RefusalError(
            f"What the coordinator says of the sites {what} is no list of names ({error})."
        ) from error
    return names


def pack(value: Mapping[str, bytes]) -> bytes:
    """Bytes by name, as they are sent: JSON with hexadecimal digits."""
    return json.dumps({name: content.hex() for name, content in value.items()}).encode()


def unpack(body: bytes) -> dict[str, bytes]:
    """Bytes by name, from what :func:`pack` gave.

    Raises:
        RefusalError: it is something else.
    """
    try:
        value: Any = json.loads(body)
        return {str(name): bytes.fromhex(text) for name, text in value.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RefusalError(
            f"A message of SecAgg+ holds no bytes in hexadecimal digits ({error!r:.80}): it was "
            "changed. Resume the run; the round begins anew."
        ) from error
