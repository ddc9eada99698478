"""SecAgg+ (``protection.secagg``) at a site: what it reads, does and sends in a round.

The secrets of a round, and what the site has done with them, lie in its home, so that nothing is
made twice with the same secrets for something else. For which sums it has answered it keeps for
ever, across all runs.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from threading import RLock

from cachetools import LRUCache, cached

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.bundle import open_bundle
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Message, Topic
from federated.files import PRIVATE, atomic_path, locked, read_json, write_json
from federated.protection.secagg import protocol
from federated.protection.secagg.answered import Answered
from federated.protection.secagg.consistency import Said, check_consistent
from federated.protection.secagg.keys import KeyPair
from federated.protection.secagg.once import Done
from federated.protection.secagg.roster import own_commitment
from federated.protection.secagg.round import Advertised, Round, Secrets, label
from federated.protection.secagg.view import View, view
from federated.protection.secagg_plus import Masking
from federated.run.result import stage_result
from federated.secrets.home import private_folder, refuse_open
from federated.site.releases import state_digest
from federated.stages.entering import split_records, training_records
from federated.stages.named_sums import named_sum, open_sum, refuse_sum, same_predictions, senders
from federated.stages.report import tell
from federated.stages.secagg_messages import (
    Roster,
    masked_round,
    pack,
    pack_answer,
    parse_advertised,
    parse_names,
    unpack,
)
from federated.stages.site import Site, SiteCall, SiteRound, open_site
from federated.update import Quantised

# The step that is others each time it is done.
SHARES = "shares"


def advertise_site(call: SiteCall, round_number: int, name: str = "") -> None:
    """Stage 1 at a site: make the keys of an attempt at a round, once, and send the public halves.

    Here and in the other stages ``name`` is that of the sum that they are for; it is empty for that
    of the round's updates.

    Raises:
        ConsiliumError: the site has answered in this attempt already.
    """
    started = time.time()
    site = open_site(call)
    topic = open_sum(site, round_number, name).topic
    kept = _Kept(site, topic)
    if kept.secrets.is_file():
        public = _public(_read_secrets(site, topic), site, topic)
    elif kept.done.is_file():
        raise _over(site, topic)
    else:
        _erase(site)
        secrets, public = protocol.advertise(
            site.name, site.run.run_id, round_number, topic.attempt, topic.sum
        )
        own = {
            "sealing": secrets.sealing.private.hex(),
            "masking_seed": secrets.masking_seed.hex(),
            "own_seed": secrets.own_seed.hex(),
        }
        write_json(kept.secrets, own, PRIVATE)
    sent = site.to_coordinator(topic, kinds.ADVERTISED, pack(asdict(public)))
    tell(site, round_number, stage_result(site.name, "advertise", started, sent=sent), name)


def share_site(call: SiteCall, round_number: int, name: str = "") -> None:
    """Stage 2 at a site: split its secrets among its neighbours and itself.

    Raises:
        ConsiliumError: the site has no secrets for the round, or has shared them with others, or
            the roster names other sites.
    """
    started = time.time()
    site = open_site(call)
    topic = open_sum(site, round_number, name).topic
    advertised, size = _told_keys(site, topic)
    secrets, kept = _read_secrets(site, topic), _Kept(site, topic)
    session = masked_round(site.run, list(advertised), topic)

    def make() -> bytes:
        return pack(protocol.share(secrets, advertised, session))

    body = kept.once(SHARES, lambda done: done.share(advertised, session), session, make)
    sent = site.to_coordinator(topic, kinds.SHARES, body)
    result = stage_result(site.name, "share", started, sent=sent, received=size)
    tell(site, round_number, result, name)


def masking(site: Site, opened: SiteRound) -> tuple[Masking, int]:
    """Stage 3 at a site: what it masks its update with, and the bytes that it had to download.

    Raises:
        ConsiliumError: the site has no secrets for the round, or the roster names other sites.
    """
    topic = opened.topic
    advertised, size = _told_keys(site, topic)
    sharing, more = _told_names(site, topic, kinds.SHARING)
    inbox = site.from_coordinator(topic, kinds.INBOX)
    secrets = _read_secrets(site, topic)
    session = masked_round(site.run, list(advertised), topic)
    return Masking(secrets, advertised, sharing, session), size + more + inbox.size


def masked_once(
    site: Site,
    opened: SiteRound,
    masks: Masking,
    quantised: Quantised,
    make: Callable[[], bytes],
) -> bytes:
    """The payload of a masked update, which is made once: asked again, the site sends the same.

    Args:
        site: the site.
        opened: the round.
        masks: what the site masks with.
        quantised: what is masked, int32 ``(length,)``.
        make: gives the payload's bytes.

    Raises:
        ConsiliumError: something else was masked with the same secrets before.
    """

    def mark(done: Done) -> Done:
        return done.mask(quantised, masks.advertised, masks.sharing, masks.round_)

    return _Kept(site, opened.topic).once("payload", mark, masks.round_, make)


def agree_site(call: SiteCall, round_number: int, name: str = "") -> None:
    """Stage 4 at a site, the consistency round: sign what it was told of the round.

    Raises:
        ConsiliumError: it was told of a sum that it must not help to open, or it has signed
            something else in this attempt.
    """
    started = time.time()
    site = open_site(call)
    topic = open_sum(site, round_number, name).topic
    told = _Told.read(site, topic)

    def mark(done: Done) -> Done:
        return done.sign(told.view, told.round_)

    body = _Kept(site, topic).once("view", mark, told.round_, told.view.to_bytes)
    sent = site.to_coordinator(topic, kinds.CONSISTENCY, body)
    result = stage_result(site.name, "agree", started, sent=sent, received=told.size)
    tell(site, round_number, result, name)


def answer_site(call: SiteCall, round_number: int, name: str = "") -> None:
    """Stage 5 at a site: give the shares that unmask the sum, once.

    It does so only if enough sites have signed that they were told the same. The sum that the
    shares are for is written down before, so that no crash lets the site help to a second one; then
    the round's secrets are erased.

    Raises:
        ConsiliumError: the sum is one that the site must not help to open.
    """
    started = time.time()
    site = open_site(call)
    opened = open_sum(site, round_number, name)
    topic = opened.topic
    if (before := site.sent_before(topic, kinds.ANSWER, kinds.MOST_SMALL)) is not None:
        # It was interrupted after that, and has nothing left to answer with.
        _Kept(site, topic).secrets.unlink(missing_ok=True)
        answered = stage_result(site.name, "answer", started, sent=len(before))
        tell(site, round_number, answered, name)
        return
    told = _Told.read(site, topic)
    secrets = _read_secrets(site, topic)
    count = len(opened.selected)
    most = kinds.most_bundle(count, kinds.most_view(count))
    message = site.from_coordinator(topic, kinds.AGREED, most)
    signed = _bundled(site, topic, kinds.CONSISTENCY, message)
    said = {who: Said(sha256(body).hexdigest(), True) for who, body in signed.items()}
    agreed = check_consistent(site.name, told.view, said, told.round_)
    inbox = unpack(site.from_coordinator(topic, kinds.INBOX).body)
    note_answer(site, opened, told.view.responded)
    answer = protocol.answer(secrets, inbox, told.advertised, agreed, told.round_)
    for dealer in answer.wrongly_dealt:
        site.home.audit.add("accused", run=topic.run, round=round_number, sender=dealer)
    sent = site.to_coordinator(topic, kinds.ANSWER, pack_answer(answer))
    _Kept(site, topic).secrets.unlink()
    tell(
        site,
        round_number,
        stage_result(site.name, "answer", started, sent=sent, received=message.size),
        name,
    )


def note_answer(site: Site, opened: SiteRound, responded: tuple[str, ...]) -> None:
    """Write down for which sum the site helps, before it does; for ever, and across all runs.

    The state is known by its values: a file of the same ones can be written in many ways. Of the
    updates the round is one of them, by which a site trains: after a lost round the next one starts
    from the same weights, with other sites. Sums of different names are different ones: a name says
    what a site puts into the sum, and what that follows from. But where several tell of the same
    cases by the same model (``NamedSum.predicted``), all of them are of one set of sites.

    Raises:
        ConsiliumError: it has helped to another sum of the same data from the same state.
    """
    path, name = site.home.answered_path, opened.topic.sum
    start, earlier = opened.context.state, list[str]()
    if name:
        named = named_sum(name)
        data = [_data(split_records(site, named.splits), f"sum {name}")]
        # Of each split by itself: other sums tell of it too, by the same model.
        data += [_data(split_records(site, (s,)), f"predicted {s}") for s in named.predicted]
        # A home of before 27 November 2026 has that under the other sums' names alone.
        earlier = [
            _data(split_records(site, other.splits), f"sum {other.name}")
            for other in same_predictions(named)
        ]
        state = named.source(site, start)
    else:
        data, state = [_data(training_records(site))], state_digest(start)
    # By their keys too: another party under the name of one would be in another sum.
    members = site.mailbox.members.members
    known = {who: f"{who} ({members[who].identity.fingerprint})" for who in responded}
    # Two runs at once would each write what the other has not read.
    with locked(private_folder(path.parent) / f"{site.name}.lock"):
        before = after = Answered.from_json(read_json(path) if path.is_file() else {})
        for each in earlier:
            before.refuse_other(each, state, known.values(), known.get(site.name, ""))
        for each in data:
            after = after.allow(each, state, known.values(), known.get(site.name, ""))
        if after != before:
            write_json(path, after.to_json(), PRIVATE)


def _data(records: Sequence[str], what: str = "") -> str:
    """What stands for records in a list of answers; ``what`` is told of them, if not an update."""
    # No record is called as what is told of it: records are digests.
    return sha256("|".join([*([what] * bool(what)), *sorted(records)]).encode()).hexdigest()


def forget_secrets(call: SiteCall) -> None:
    """Erase at a site what is secret of a round, once it is over or broken off.

    A site that dropped out or never answered still has its seeds, with which its masked update
    could be read, and the coordinator may have kept that.
    """
    _erase(open_site(call))


@dataclass(frozen=True)
class _Told:
    """What a site was told of a round before it helps to open its sum, checked; and its bytes."""

    advertised: dict[str, Advertised]
    view: View
    round_: Round
    size: int

    @staticmethod
    def read(site: Site, topic: Topic) -> "_Told":
        advertised, size = _told_keys(site, topic)
        sharing, _ = _told_names(site, topic, kinds.SHARING)
        responded, more = _told_names(site, topic, kinds.RESPONDED)
        counted = refuse_sum(site.run, topic, site.name, responded)
        if not topic.sum:
            site.run.refuse_too_little_noise(len(counted))
        session = masked_round(site.run, list(advertised), topic)
        missing = Roster(advertised, tuple(sharing)).missing(responded)
        seen = view(site.name, advertised, responded, missing, session)
        return _Told(advertised, seen, session, size + more)


class _Kept:
    """The files of what a site keeps of an attempt at a round."""

    def __init__(self, site: Site, topic: Topic) -> None:
        place = private_folder(site.store.secrets, site.home.root)
        stem = f"round-{topic.round:03d}-attempt-{topic.attempt}"
        stem += f"-{topic.sum}" if topic.sum else ""
        self.site, self.topic = site, topic
        self.secrets, self.done = place / f"{stem}.secret.json", place / f"{stem}.done.json"
        self._stem = place / stem

    def made(self, step: str) -> Path:
        """The file of what a step has made."""
        return self._stem.with_name(f"{self._stem.name}.{step}.secret")

    def once(
        self,
        step: str,
        mark: Callable[[Done], Done],
        session: Round,
        make: Callable[[], bytes],
    ) -> bytes:
        """What a step has made, which is marked first, and stored before it is sent.

        It is made once: sealed shares are others each time. What masks and signs is not, so that
        it is made again where it was marked and the process ended before it was stored.

        Args:
            step: the step.
            mark: gives what is to be noted before the step is done.
            session: the round.
            make: what the step does.

        Raises:
            ConsiliumError: the step was done for something else, or shares were begun and not
                stored.
        """
        before = (
            Done.from_json(read_json(self.done)) if self.done.is_file() else Done.nothing(session)
        )
        after, path = mark(before), self.made(step)
        if after == before:
            if path.is_file():
                return path.read_bytes()
            if step == SHARES:
                raise _over(self.site, self.topic)
        write_json(self.done, after.to_json(), PRIVATE)
        content = make()
        with atomic_path(path, PRIVATE) as temporary:
            temporary.write_bytes(content)
        return content


def _over(site: Site, topic: Topic) -> RefusalError:
    return RefusalError(
        f"{site.name} does nothing more in attempt {topic.attempt} at round {topic.round} of run "
        f"{topic.run}: it was interrupted in it, and its secrets may be used once. Resume the run; "
        "the round begins anew."
    )


def _told_keys(site: Site, topic: Topic) -> tuple[dict[str, Advertised], int]:
    """The public keys of a round, each as its owner has signed it, and the bytes they took."""
    most = kinds.most_bundle(len(senders(site.run, topic)), kinds.MOST_ADVERTISED)
    message = site.from_coordinator(topic, kinds.ROSTER, most)
    bodies = _bundled(site, topic, kinds.ADVERTISED, message)
    return {name: parse_advertised(body) for name, body in bodies.items()}, message.size


# What was read of a bundle whose signatures were checked, a function of bytes that were checked
# against their SHA-256 and of the keys in the plan of the run. Each site reads that of the keys in
# four stages, and in a worker there are stages of many sites, which are all told the same.
@cached(
    LRUCache(maxsize=8),
    key=lambda site, topic, kind, message: (site.start, topic, kind, message.header.sha256),
    lock=RLock(),
)
def _bundled(site: Site, topic: Topic, kind: str, message: Message) -> Mapping[str, bytes]:
    """The bodies of what sites have signed for each other, as the coordinator passes it on.

    Raises:
        RefusalError: a message in it is not signed by whom it says it is from, or is another one.
    """
    return open_bundle(message.body, topic, kind, COORDINATOR, site.mailbox.members)


def _told_names(site: Site, topic: Topic, kind: str) -> tuple[list[str], int]:
    message = site.from_coordinator(topic, kind)
    return parse_names(message.body, f"{kind} in round {topic.round}"), message.size


def _public(secrets: Secrets, site: Site, topic: Topic) -> Advertised:
    """The public halves of secrets, as they were advertised."""
    what = "own commitment"
    purpose = label(site.run.run_id, topic.round, topic.attempt, what, site.name, sum_=topic.sum)
    commitment = own_commitment(secrets.own_seed, purpose)
    return Advertised(secrets.sealing.public, secrets.masking.public, commitment)


def _erase(site: Site) -> None:
    """Erase secrets, and what was made with them; what was done is kept, so that it stays once."""
    folder = private_folder(site.store.secrets, site.home.root)
    # Those that a process was killed over while it wrote them have a dot before their name.
    for secret in (*folder.glob("round-*.secret*"), *folder.glob(".round-*.secret*")):
        secret.unlink()


def _read_secrets(site: Site, topic: Topic) -> Secrets:
    path = _Kept(site, topic).secrets
    try:
        refuse_open(path)
        value = {name: bytes.fromhex(text) for name, text in read_json(path).items()}
        sealing = KeyPair.of(value["sealing"])
        return Secrets(site.name, sealing, value["masking_seed"], value["own_seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConsiliumError(
            f"{site.name} has no secrets for round {topic.round} of run {site.run.run_id}: it has "
            "answered already, or never advertised keys. Resume the run; the round begins anew."
        ) from error
