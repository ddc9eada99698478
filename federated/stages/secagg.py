"""SecAgg+ (``protection.secagg``), as stages of a round: what each party reads, does and sends.

The coordinator passes on what sites have signed, so that it can put no key of its own in the place
of a site's. A site's secrets of a round lie in its home.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.bundle import open_bundle, pack_bundle
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message, Topic
from federated.files import read_json, write_json
from federated.protection import Protection, SecAggPlus
from federated.protection.plain import encode_numbers
from federated.protection.secagg import protocol
from federated.protection.secagg.keys import KeyPair
from federated.protection.secagg.masks import WORDS
from federated.protection.secagg.round import Advertised, Round, Secrets, Share
from federated.protection.secagg_plus import Masking
from federated.rounds.context import RunContext
from federated.run.result import StageResult, stage_result
from federated.run.update_files import read_payload, write_payload
from federated.secrets.home import private_folder, refuse_open
from federated.stages.coordinator import Coordinator
from federated.stages.site import Site, SiteCall, SiteRound, open_round, open_site


@dataclass(frozen=True)
class Roster:
    """Who takes part in a round: who has advertised which keys, and who has shared its secrets."""

    advertised: Mapping[str, Advertised]
    sharing: tuple[str, ...] = ()

    def missing(self, responded: Sequence[str]) -> tuple[str, ...]:
        """The sites that have shared their secrets, and are not among those that responded."""
        return tuple(site for site in self.sharing if site not in responded)


def advertise_site(call: SiteCall, round_number: int) -> StageResult:
    """Stage 1 at a site: make the keys of a round and send the public halves."""
    started = time.time()
    site = open_site(call)
    opened = open_round(site, round_number)
    _erase(site)
    secrets, public = protocol.advertise(site.name)
    own = {
        "sealing": asdict(secrets.sealing),
        "masking_seed": secrets.masking_seed,
        "own_seed": secrets.own_seed,
    }
    write_json(_secret_path(site, round_number), to_hex(own), 0o600)
    sent = site.to_coordinator(opened.topic, kinds.ADVERTISED, _pack(asdict(public)))
    return stage_result(site.name, "advertise", started, sent=sent)


def relay_keys(coordinator: Coordinator, topic: Topic, sites: Sequence[str]) -> Roster:
    """Pass on to all sites the public keys, as each has signed them; after stage 1.

    Raises:
        ConsiliumError: too few sites are left.
    """
    messages = _received(coordinator, topic, kinds.ADVERTISED, sites)
    _refuse_too_few(coordinator.run, topic.round, list(messages))
    coordinator.mailbox.send(topic, kinds.ROSTER, pack_bundle(list(messages.values())))
    return Roster({site: _advertised(message.body) for site, message in messages.items()})


def share_site(call: SiteCall, round_number: int) -> StageResult:
    """Stage 2 at a site: split its secrets among its neighbours and itself.

    Raises:
        ConsiliumError: the site has no secrets for the round, or the roster names other sites.
    """
    started = time.time()
    site = open_site(call)
    opened = open_round(site, round_number)
    advertised, size = _told_keys(site, opened.topic)
    secrets = _read_secrets(site, round_number)
    session = masked_round(site.run, list(advertised), round_number)
    sealed = protocol.share(secrets, advertised, session)
    sent = site.to_coordinator(opened.topic, kinds.SHARES, _pack(sealed))
    return stage_result(site.name, "share", started, sent=sent, received=size)


def relay_shares(
    coordinator: Coordinator, topic: Topic, roster: Roster, sites: Sequence[str]
) -> Roster:
    """Pass on the sealed shares, unread; the coordinator does so after stage 2.

    Raises:
        ConsiliumError: too few sites are left.
    """
    shares = {
        site: _unpack(message.body)
        for site, message in _received(coordinator, topic, kinds.SHARES, sites).items()
    }
    _refuse_too_few(coordinator.run, topic.round, list(shares))
    send = coordinator.mailbox.send
    for site in shares:
        inbox = {sender: sealed[site] for sender, sealed in shares.items() if site in sealed}
        send(topic, kinds.INBOX, _pack(inbox), site)
    send(topic, kinds.SHARING, json.dumps(list(shares)).encode())
    return replace(roster, sharing=tuple(shares))


def masking(site: Site, opened: SiteRound) -> tuple[Masking, int]:
    """Stage 3 at a site: what it masks its update with, and the bytes that it had to download.

    Raises:
        ConsiliumError: the site has no secrets for the round, or the roster names other sites.
    """
    advertised, size = _told_keys(site, opened.topic)
    sharing, more = _told_names(site, opened.topic, kinds.SHARING)
    inbox = site.from_coordinator(opened.topic, kinds.INBOX)
    secrets = _read_secrets(site, opened.topic.round)
    session = masked_round(site.run, list(advertised), opened.topic.round)
    return Masking(secrets, advertised, sharing, session), size + more + inbox.size


def relay_responded(
    coordinator: Coordinator, topic: Topic, roster: Roster, responded: Sequence[str]
) -> None:
    """Tell all sites whose update is in the sum; the coordinator does so after stage 3.

    Raises:
        ConsiliumError: so few have responded, or in such groups, that no site would help.
    """
    run, number = coordinator.run, topic.round
    _refuse_sum(run, number, responded[0], responded)
    protocol.refuse_parts(responded, masked_round(run, list(roster.advertised), number))
    coordinator.mailbox.send(topic, kinds.RESPONDED, json.dumps(list(responded)).encode())


def answer_site(call: SiteCall, round_number: int) -> StageResult:
    """Stage 4 at a site: give the shares that unmask the sum, once.

    The sum that they are for is written down before, so that no crash lets the site help to a
    second one; then the round's secrets are erased.

    Raises:
        ConsiliumError: the sum is one that the site must not help to open.
    """
    started = time.time()
    site = open_site(call)
    opened = open_round(site, round_number)
    topic = opened.topic
    advertised, size = _told_keys(site, topic)
    sharing, _ = _told_names(site, topic, kinds.SHARING)
    responded, more = _told_names(site, topic, kinds.RESPONDED)
    counted = _refuse_sum(site.run, round_number, site.name, responded)
    site.run.refuse_too_little_noise(len(counted))
    secrets = _read_secrets(site, round_number)
    sealed = _unpack(site.from_coordinator(topic, kinds.INBOX).body)
    record = site.store.secrets / "answered.json"
    answered = read_json(record) if record.is_file() else {}
    roster = Roster(advertised, tuple(sharing))
    shares = protocol.answer(
        secrets,
        sealed,
        advertised,
        responded,
        roster.missing(responded),
        answered.get(str(round_number)),
        masked_round(site.run, list(advertised), round_number),
    )
    write_json(record, answered | {str(round_number): sorted(responded)}, 0o600)
    told = {peer: asdict(own) for peer, own in shares.items()}
    sent = site.to_coordinator(topic, kinds.ANSWER, _pack(told))
    _secret_path(site, round_number).unlink()
    return stage_result(site.name, "unmask", started, sent=sent, received=size + more)


def forget_secrets(call: SiteCall) -> None:
    """Erase at a site what is secret of a round, once it is over or broken off.

    A site that dropped out or never answered still has its seeds, with which its masked update
    could be read, and the coordinator may have kept that.
    """
    _erase(open_site(call))


def unmask_sum(
    coordinator: Coordinator,
    topic: Topic,
    roster: Roster,
    responded: Sequence[str],
    answering: Sequence[str],
) -> None:
    """Stage 4 at the coordinator: take the masks off the round's sum.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        roster: who takes part in the round.
        responded: the sites whose updates are in the sum.
        answering: the sites that were there to answer.

    Raises:
        ConsiliumError: too few sites have answered; the message names whose shares are missing.
    """
    folder, number = coordinator.folder, topic.round
    session = masked_round(coordinator.run, list(roster.advertised), number)
    masked = read_payload(folder.sum_path(number))
    messages = _received(coordinator, topic, kinds.ANSWER, answering)
    answers = {site: _shares(message.body, site) for site, message in messages.items()}
    words = masked.body.view(WORDS[session.bits])
    missing = roster.missing(responded)
    sums = protocol.unmask(words, answers, roster.advertised, responded, missing, session)
    encoding, body = encode_numbers(sums)
    write_payload(folder.sum_path(number), replace(masked, encoding=encoding, body=body))


def masked_round(run: RunContext, advertised: Sequence[str], round_number: int) -> Round:
    """What all parties know of a round of a run, once the keys are advertised.

    Raises:
        ConsiliumError: keys are told of sites that were not selected, whose holders could be
            anybody.
    """
    experiment = run.experiment
    protection, bits = experiment.protection, experiment.compression.bits
    assert isinstance(protection, SecAggPlus)
    assert bits is not None
    selected = run.selected(round_number)
    names = sorted(advertised)
    unknown = [name for name in names if name not in selected]
    if unknown:
        raise RefusalError(
            f"Round {round_number} is told the keys of {', '.join(unknown)}, not selected in it; "
            "who has those could hold shares of everyone's. No site goes on. Resume the run; the "
            "round begins anew."
        )
    return protection.begin(run.run_id, round_number, names, len(selected), experiment.seed, bits)


def _told_keys(site: Site, topic: Topic) -> tuple[dict[str, Advertised], int]:
    """The public keys of a round, each as its owner has signed it, and the bytes they took."""
    message = site.from_coordinator(topic, kinds.ROSTER)
    members = site.mailbox.members
    bodies = open_bundle(message.body, topic, kinds.ADVERTISED, COORDINATOR, members)
    return {name: _advertised(body) for name, body in bodies.items()}, message.size


def _told_names(site: Site, topic: Topic, kind: str) -> tuple[list[str], int]:
    message = site.from_coordinator(topic, kind)
    try:
        names = json.loads(message.body)
        if not isinstance(names, list) or not all(type(name) is str for name in names):
            raise ValueError("they are no names")
    except (ValueError, RecursionError) as error:
        raise RefusalError(
            f"What the coordinator says of the sites {kind} in round {topic.round} is no list of "
            f"names ({error})."
        ) from error
    return names, message.size


def _received(
    coordinator: Coordinator, topic: Topic, kind: str, sites: Sequence[str]
) -> dict[str, Message]:
    """The messages of a kind that have arrived and count, by site; others are as if not sent."""
    found = {}
    for site in sites:
        try:
            message = coordinator.mailbox.receive(topic, kind, site, kinds.MOST_SMALL)
            _unpack(message.body)
            found[site] = message
        except ConsiliumError as error:
            coordinator.mailbox.audit.add(
                "left out", run=topic.run, round=topic.round, sender=site, said=str(error)
            )
    return found


def _advertised(body: bytes) -> Advertised:
    value = _unpack(body)
    try:
        return Advertised(**value)
    except TypeError as error:
        raise RefusalError(f"Keys of a round are not as keys are ({error}).") from error


def _shares(body: bytes, site: str) -> dict[str, Share]:
    try:
        told = json.loads(body)
        return {
            peer: Share(share["kind"], bytes.fromhex(share["value"]))
            for peer, share in told.items()
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConsiliumError(f"The answer of {site} holds no shares ({error!r:.80}).") from error


def _refuse_too_few(run: RunContext, round_number: int, left: Sequence[str]) -> None:
    selected = run.selected(round_number)
    assert isinstance(run.experiment.protection, SecAggPlus)
    needed = run.experiment.protection.needed(len(selected))
    if len(left) < needed:
        absent = ", ".join(site for site in selected if site not in left)
        raise ConsiliumError(
            f"Round {round_number} cannot be aggregated under secagg_plus: {len(left)} of "
            f"{len(selected)} sites are left, fewer than the threshold of {needed}; missing: "
            f"{absent}. Nothing of any update was revealed. Resume when they are back."
        )


def _refuse_sum(
    run: RunContext, round_number: int, site: str, responded: Sequence[str]
) -> frozenset[str]:
    """Refuse to open a sum that is not one of enough of the sites selected; return who is in it."""
    protection: Protection = run.experiment.protection
    return protection.refuse_too_few(site, round_number, run.selected(round_number), responded)


def _erase(site: Site) -> None:
    for secret in private_folder(site.store.secrets, site.home.root).glob("round-*.json"):
        secret.unlink()


def _secret_path(site: Site, round_number: int) -> Path:
    return site.store.secrets / f"round-{round_number:03d}.json"


def _read_secrets(site: Site, round_number: int) -> Secrets:
    path = _secret_path(site, round_number)
    try:
        refuse_open(path)
        value = from_hex(read_json(path))
    except OSError as error:
        raise ConsiliumError(
            f"{site.name} has no secrets for round {round_number} of run {site.run.run_id}: it has "
            "answered already, or never advertised keys. Resume the run; the round begins anew."
        ) from error
    return Secrets(site.name, **(value | {"sealing": KeyPair(**value["sealing"])}))


def _pack(value: Any) -> bytes:
    return json.dumps(to_hex(value)).encode()


def _unpack(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(f"A message of SecAgg+ is none ({error!r:.80}).") from error
    if not isinstance(value, dict):
        raise RefusalError("A message of SecAgg+ is none: it holds no names.")
    return from_hex(value) if not _has_kinds(value) else value


def _has_kinds(value: dict[str, Any]) -> bool:
    """Whether these are shares, which say of what they are in words."""
    return any(isinstance(item, dict) for item in value.values())


def to_hex(value: Any) -> Any:
    """A value with hexadecimal digits for all bytes in it."""
    if isinstance(value, dict):
        return {key: to_hex(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def from_hex(value: Any) -> Any:
    """A value with bytes for all text in it, which has to be hexadecimal digits.

    Raises:
        ConsiliumError: a text in it is something else.
    """
    if isinstance(value, dict):
        return {key: from_hex(item) for key, item in value.items()}
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise RefusalError(
            f"A message of SecAgg+ holds {value!r:.40} where bytes in hexadecimal digits are "
            "expected: it was changed. Resume the run; the round begins anew."
        ) from error
