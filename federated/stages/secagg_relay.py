"""SecAgg+ at the coordinator: it passes on what sites have signed, and unmasks the sum at the end.

It can put no key of its own in the place of a site's, since sites check each other's signatures.
What does not count is as if it had not been sent, with a line in the audit log.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from federated.errors import ConsiliumError, TooFewSitesError
from federated.exchange import kinds
from federated.exchange.bundle import pack_bundle
from federated.exchange.message import Message, Topic
from federated.protection import MaskedSums
from federated.protection.secagg import protocol
from federated.protection.secagg.dealing import refuse_dealt
from federated.protection.secagg.recovery import Evidence
from federated.protection.secagg.roster import refuse_unusable
from federated.protection.secagg.view import refuse_parts, refuse_unopenable
from federated.rounds.context import RunContext
from federated.run.update_files import read_payload, write_payload
from federated.stages.begun_sums import note_begun
from federated.stages.coordinator import Coordinator
from federated.stages.named_sums import refuse_sum, senders
from federated.stages.secagg_messages import (
    Roster,
    masked_round,
    pack,
    parse_advertised,
    parse_answer,
    unpack,
)


def relay_keys(coordinator: Coordinator, topic: Topic, sites: Sequence[str]) -> Roster:
    """Pass on to all sites the public keys, as each has signed them; after stage 1.

    Raises:
        ConsiliumError: too few sites are left.
    """

    def check(site: str, body: bytes) -> None:
        refuse_unusable(site, parse_advertised(body))

    most = kinds.MOST_ADVERTISED
    messages = _received(coordinator, topic, kinds.ADVERTISED, sites, check, most)
    _refuse_too_few(coordinator.run, topic, list(messages))
    coordinator.mailbox.send(topic, kinds.ROSTER, pack_bundle(list(messages.values())))
    return Roster({site: parse_advertised(message.body) for site, message in messages.items()})


def relay_shares(
    coordinator: Coordinator, topic: Topic, roster: Roster, sites: Sequence[str]
) -> Roster:
    """Pass on the sealed shares, unread; the coordinator does so after stage 2.

    Raises:
        ConsiliumError: too few sites are left.
    """
    session = masked_round(coordinator.run, list(roster.advertised), topic)

    def check(site: str, body: bytes) -> None:
        refuse_dealt(site, unpack(body), session)

    messages = _received(coordinator, topic, kinds.SHARES, sites, check)
    shares = {site: unpack(message.body) for site, message in messages.items()}
    _refuse_too_few(coordinator.run, topic, list(shares))
    send = coordinator.mailbox.send
    for site in shares:
        inbox = {sender: sealed[site] for sender, sealed in shares.items() if site in sealed}
        send(topic, kinds.INBOX, pack(inbox), site)
    send(topic, kinds.SHARING, json.dumps(list(shares)).encode())
    return replace(roster, sharing=tuple(shares), dealt=shares)


def relay_responded(
    coordinator: Coordinator, topic: Topic, roster: Roster, responded: Sequence[str]
) -> None:
    """Tell all sites whose update is in the sum; the coordinator does so after stage 3.

    Raises:
        ConsiliumError: so few have responded, or in such groups, that no site would help.
    """
    run = coordinator.run
    refuse_sum(run, topic, responded[0], responded)
    session = masked_round(run, list(roster.advertised), topic)
    refuse_parts(responded, session)
    refuse_unopenable(responded, roster.missing(responded), session)
    note_begun(coordinator, topic, responded)
    coordinator.mailbox.send(topic, kinds.RESPONDED, json.dumps(list(responded)).encode())


def relay_views(coordinator: Coordinator, topic: Topic, sites: Sequence[str]) -> None:
    """Pass on to all sites what each of ``sites`` has signed that it was told; after stage 4."""
    most = kinds.most_view(len(senders(coordinator.run, topic)))
    messages = _received(coordinator, topic, kinds.CONSISTENCY, sites, lambda *_: None, most)
    coordinator.mailbox.send(topic, kinds.AGREED, pack_bundle(list(messages.values())))


def unmask_sum(
    coordinator: Coordinator,
    topic: Topic,
    roster: Roster,
    responded: Sequence[str],
    answering: Sequence[str],
) -> tuple[str, ...]:
    """The last stage at the coordinator: take the masks off the round's sum.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        roster: who takes part in the round.
        responded: the sites whose updates are in the sum.
        answering: the sites that were there to answer.

    Returns:
        The sites that have dealt or answered wrong shares; the sum is right without these.

    Raises:
        SumLostError: the sum cannot be opened because of what sites have sent.
        ConsiliumError: too few sites have answered; the message names whose shares are missing.
    """
    number, audit = topic.round, coordinator.mailbox.audit
    path = coordinator.folder.sum_path(number, topic.sum)
    session = masked_round(coordinator.run, list(roster.advertised), topic)
    masked = read_payload(path)

    def check(site: str, body: bytes) -> None:
        parse_answer(body, site)

    given = _received(coordinator, topic, kinds.ANSWER, answering, check)
    answers = {site: parse_answer(message.body, site) for site, message in given.items()}
    protection = coordinator.run.experiment.protection
    assert isinstance(protection, MaskedSums)
    words = protection.masked_words(masked, session)
    # As it was passed on: a site that signs other shares later would have their holders blamed.
    evidence = Evidence(answers, roster.dealt, roster.advertised, session)
    unmasked = protocol.unmask(words, responded, roster.missing(responded), evidence)
    for site in unmasked.faulty:
        audit.add("faulty", run=topic.run, round=number, sender=site, said="wrong shares")
    for site, accusers in unmasked.accused.items():
        audit.add("accused", run=topic.run, round=number, sender=site, said=", ".join(accusers))
    write_payload(path, protection.unmasked(masked, unmasked.sums, session))
    return unmasked.faulty


def _received(
    coordinator: Coordinator,
    topic: Topic,
    kind: str,
    sites: Sequence[str],
    check: Callable[[str, bytes], None],
    most: int = kinds.MOST_SMALL,
) -> dict[str, Message]:
    """The messages of a kind that have arrived and count, by site; others are as if not sent.

    Args:
        coordinator: the coordinator.
        topic: what the messages have in common.
        kind: what they are.
        sites: who was to send one.
        check: raises where a body is not what it has to be.
        most: how many bytes a body may have; what is passed on has to fit in a bundle.
    """
    found = {}
    for site in sites:
        try:
            message = coordinator.mailbox.receive(topic, kind, site, most)
            check(site, message.body)
            found[site] = message
        except ConsiliumError as error:
            coordinator.mailbox.audit.add(
                "left out", run=topic.run, round=topic.round, sender=site, said=str(error)
            )
    return found


def _refuse_too_few(run: RunContext, topic: Topic, left: Sequence[str]) -> None:
    selected = senders(run, topic)
    protection = run.experiment.protection
    assert isinstance(protection, MaskedSums)
    needed = protection.needed(len(selected))
    if len(left) < needed:
        absent = ", ".join(site for site in selected if site not in left)
        raise TooFewSitesError(
            f"Round {topic.round} cannot be aggregated under {protection.name}: "
            f"{len(left)} of {len(selected)} sites are left, fewer than the threshold of {needed}; "
            f"missing: {absent}. Nothing of any update was revealed. Resume when they are back."
        )
