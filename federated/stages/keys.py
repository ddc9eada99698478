"""keys: how the sites of a run come to one key of encryption, which no coordinator has.

1. ``send_sealing``: with its answer to the proposal each site sends all others, signed, the public
   half of a key of its own for this run, to which others can seal.
2. ``make_key``: one site, the maker, makes the run's key, or takes the one that it had. It tells
   all a commitment to it, and seals it to each other site that its policy knows.
3. ``take_key``: each other site opens what is sealed to it, compares it with the commitment, keeps
   it in its own home, and signs which key it has.
4. ``relay_held``: the coordinator passes on what the sites have signed.
5. ``site_key``: before it encrypts or opens anything, each site compares what all have signed.

What the coordinator passes on it can read none of, and whom it passes what it cannot change: each
message is signed, and is for one recipient in one attempt at one plan. docs/adr/0011 says who
notices which lie.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cachetools import LRUCache, cached

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.bundle import open_bundle, pack_bundle
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic
from federated.exchange.policy import refuse_stranger
from federated.protection import Protection
from federated.protection.keys import (
    PublicContext,
    RunKey,
    SecretContext,
    most_key_bytes,
    new_run_key,
    parse_context,
)
from federated.protection.parameters import Parameters
from federated.rounds.context import sent_length
from federated.run.update_files import read_layout
from federated.secrets.sealing import (
    OVERHEAD,
    SEALING_KEY_BYTES,
    open_sealed,
    seal_to,
    sealing_public,
)
from federated.site.key_store import KeyStore
from federated.stages.coordinator import Coordinator
from federated.stages.site import Site, SiteCall, candidate, open_site, statistics_state
from federated.update import Layout
from federated.weights.bounded_file import Content
from federated.weights.planned import most_state


@dataclass(frozen=True)
class Held:
    """A run's key in an attempt, and which sites have signed that they have it."""

    public: PublicContext
    sites: frozenset[str]


def key_parameters(experiment: Experiment, layout: Layout) -> Parameters:
    """The parameters of the key that fits what an experiment's sites send.

    Raises:
        ConsiliumError: the protection has no key, or no head room.
    """
    protection: Protection = experiment.protection
    if not protection.keyed:
        raise ConsiliumError(
            f"Experiment {experiment.name} has protection.name={protection.name}, which has no "
            "key. Set protection.name=packed_bfv or ckks."
        )
    return protection.parameters(sent_length(experiment, layout), experiment.largest_cohort())


def send_sealing(site: Site) -> None:
    """Send all other sites the public key to which what is for this site alone is to be sealed.

    It is for this run, and erased at its end: who comes by a site's home later cannot open what was
    sealed to it.

    Raises:
        ConsiliumError: the site's own key cannot be read.
    """
    public = sealing_public(_store(site).sealing_key())
    site.to_all(site.start, kinds.SEALING, public)


def make_key(call: SiteCall, done: int) -> dict[str, str]:
    """Make the run's key at its maker, tell all a commitment to it, and seal it to each site.

    A run that goes on has the key that it had, unless that is lost or made for others. ``done`` is
    the last round that is done.

    Returns:
        To whom it is not sealed, and why: those have sent no key that counts, or are not known to
        the maker's policy.

    Raises:
        ConsiliumError: the site's own files cannot be used, or its policy allows no more to be
            sent.
    """
    site = open_site(call)
    parameters, store = _own_parameters(site, done), _store(site)
    key = store.find()
    if key is None or key.parameters != parameters:
        key = new_run_key(parameters)
        store.keep(key)
    others = [name for name in site.run.sites if name != site.name]
    before, topic = candidate(call)[0].start, site.topic(0)
    refused: dict[str, str] = {}
    for name in others:
        try:
            public = _sealing_key_of(site, before, name)
            label = _label(topic, site.name, name, key.public)
            sealed = _sealed(store, key, public, label)
        except RefusalError as error:
            refused[name] = str(error)
            site.home.audit.add("not sealed", run=topic.run, to=name, said=str(error))
        else:
            site.to_site(topic, kinds.SEALED_KEY, sealed, name)
    told = _told(key.public)
    site.to_all(topic, kinds.KEY, told)
    site.to_coordinator(topic, kinds.HELD, told)
    return refused


def _sealing_key_of(site: Site, before: Topic, name: str) -> bytes:
    """The public key that another site has signed, if the policy of this one knows that site.

    Raises:
        RefusalError: none has arrived that counts, or the policy does not.
    """
    refuse_stranger(site.home.policy(), site.name, site.mailbox.members.members[name].identity)
    return site.mailbox.receive(before, kinds.SEALING, name, SEALING_KEY_BYTES, for_all=True).body


def _sealed(store: KeyStore, key: RunKey, public: bytes, label: str) -> bytes:
    try:
        return store.sealed_once(label, lambda: seal_to(public, key.to_bytes(), label))
    except ValueError as error:
        raise RefusalError(f"What it has sent to be sealed to is no key: {error}.") from error


def take_key(call: SiteCall, maker: str, done: int) -> None:
    """Take the run's key from its maker at another site, keep it, and sign which one it is.

    Args:
        call: the site.
        maker: the site that has made the key.
        done: the last round that is done.

    Raises:
        RefusalError: the maker is none of the run's sites; or what it has sent is missing, was
            changed, is for another site, run or attempt, or is not the key that all were told of.
        ConsiliumError: the site's own files cannot be used.
    """
    site = open_site(call)
    if maker not in site.run.sites:
        raise RefusalError(
            f"{site.name} takes no key from {maker:.80}, which is none of the sites of the run."
        )
    topic = site.topic(0)
    message = site.mailbox.receive(topic, kinds.KEY, maker, kinds.MOST_HELD)
    public = parse_context(message.body, maker)
    if message.header.recipient != EVERYONE:
        raise RefusalError(
            f"{site.name} takes no key from {maker}: what that tells of it is for {site.name} "
            "alone, and has to be the same for all."
        )
    if public.parameters != _own_parameters(site, done):
        raise RefusalError(
            f"{site.name} takes no key from {maker}: it is made for {public.parameters.describe()}"
            ", and other parameters follow from the plan of the run."
        )
    store = _store(site)
    kept = store.find()
    if kept is None or kept.public != public:
        store.keep(_opened(site, maker, public))
    site.to_coordinator(topic, kinds.HELD, message.body)


def _opened(site: Site, maker: str, public: PublicContext) -> RunKey:
    """The key that is sealed to a site, which has to be the one that all were told of.

    Raises:
        RefusalError: it is not, or none that SEAL can read.
    """
    topic = site.topic(0)
    most = most_key_bytes(public.parameters) + OVERHEAD
    sealed = site.mailbox.receive(topic, kinds.SEALED_KEY, maker, most).body
    label = _label(topic, maker, site.name, public)
    try:
        content = open_sealed(_store(site).sealing_key(), sealed, label)
        key = RunKey.from_bytes(public.parameters, content)
        if key.public == public:
            key.opened()
            return key
        why = "it is another one than that which all were told of"
    except ValueError as error:
        why = str(error)
    raise RefusalError(
        f"The key that {maker} has sealed to {site.name} is refused: {why}. Ask whoever runs "
        f"{maker}; resuming the run has it sealed anew."
    )


def erase_key(call: SiteCall) -> None:
    """Remove a run's key at a site once the run has ended, from this process's memory as well."""
    _secrets.clear()
    KeyStore.of(open_site(call).home, call.run).erase()


def relay_held(
    coordinator: Coordinator, maker: str, sites: Sequence[str]
) -> tuple[Held, dict[str, str]]:
    """Pass on to all sites which key each of ``sites`` has signed that it has.

    Returns:
        The key, with those that have it; and why others have not.

    Raises:
        ConsiliumError: nothing that counts has arrived of the maker.
    """
    topic, receive = coordinator.topic(0), coordinator.mailbox.receive
    told = receive(topic, kinds.KEY, maker, kinds.MOST_HELD).body
    public = parse_context(told, maker)
    messages, lacking = {}, {}
    for site in sites:
        try:
            message = receive(topic, kinds.HELD, site, kinds.MOST_HELD)
        except RefusalError as error:
            lacking[site] = str(error)
            continue
        if message.body == told:
            messages[site] = message
            continue
        lacking[site] = (
            f"{site} has signed that it has another key than {maker} has told of: one of the two "
            "lies."
        )
    for site, why in lacking.items():
        coordinator.mailbox.audit.add("without the key", run=topic.run, sender=site, said=why)
    if maker not in messages:
        raise ConsiliumError(f"The run has no key: {lacking.get(maker, 'its maker is gone')}")
    coordinator.mailbox.send(topic, kinds.KEY_ROSTER, pack_bundle(list(messages.values())))
    return Held(public, frozenset(messages)), lacking


def held_key(site: Site) -> Held:
    """The run's key by what all sites have signed, compared at a site.

    Raises:
        RefusalError: this site's word is not among them, one is not signed by a site of the run, or
            two are of different keys.
    """
    topic = site.topic(0)
    most = kinds.most_bundle(len(site.run.sites), kinds.MOST_HELD)
    content = site.from_coordinator(topic, kinds.KEY_ROSTER, most).body
    told = _signed_bodies(content, topic, site.mailbox.members)
    own = told.get(site.name)
    if own is None:
        raise RefusalError(
            f"{site.name} has no key of the run: it is not among those that have signed that they "
            "have. Resume the run; the key is sealed anew."
        )
    for name, body in told.items():
        if body != own:
            raise RefusalError(
                f"{site.name} uses no key of the run: {name} has signed that it has another one. "
                "Who has made the key has told them two, together with the coordinator. Ask "
                "both."
            )
    return Held(parse_context(own, site.name), frozenset(told))


def _bundle_key(content: bytes, topic: Topic, _: Enrolment) -> tuple[bytes, Topic]:
    # The members follow from the plan of the run, which the topic has the digest of.
    return sha256(content).digest(), topic


# In a worker there are stages of several sites, which are all told the same.
_bundles: LRUCache[tuple[bytes, Topic], Mapping[str, bytes]] = LRUCache(maxsize=4)


@cached(_bundles, key=_bundle_key)
def _signed_bodies(content: bytes, topic: Topic, members: Enrolment) -> Mapping[str, bytes]:
    return open_bundle(content, topic, kinds.HELD, COORDINATOR, members)


def refuse_without_key(site: Site, counted: Collection[str]) -> None:
    """Refuse, at a site, a sum with sites in it that have not signed that they have the run's key.

    Raises:
        RefusalError: there are such sites.
    """
    if _keyed(site):
        lacking = sorted({*counted} - held_key(site).sites)
        if lacking:
            raise RefusalError(
                f"{site.name} does not help to open a sum with {', '.join(lacking)} in it: nothing "
                "says that there the key is the same."
            )


def site_key(site: Site) -> SecretContext | None:
    """The secret half of the run's key, at a site; ``None`` where its protection has no key.

    Raises:
        ConsiliumError: the sites have not all the same key, or the site's own is missing, readable
            by others, or damaged.
    """
    return _secret(_store(site), held_key(site).public) if _keyed(site) else None


def count_opening(site: Site, key: SecretContext) -> None:
    """Count, at a site, an opening of a sum before it happens.

    Raises:
        ConsiliumError: the noise of the key's openings is made for no more of them.
    """
    _store(site).count_opening(key.public)


_secrets: LRUCache[tuple[KeyStore, PublicContext], SecretContext] = LRUCache(maxsize=64)


@cached(_secrets)
def _secret(store: KeyStore, public: PublicContext) -> SecretContext:
    return store.read(public).opened()


def _keyed(site: Site) -> bool:
    return site.run.experiment.protection.keyed


def _store(site: Site) -> KeyStore:
    return KeyStore.of(site.home, site.run.run_id)


def _own_parameters(site: Site, done: int) -> Parameters:
    """The parameters of the run's key, as a site works them out from the plan and the state."""
    if site.run.purpose == "statistics":
        return key_parameters(site.run.experiment, statistics_state().layout)
    most = most_state(site.run.experiment)
    state = site.mailbox.receive(site.topic(done), kinds.STATE, COORDINATOR, most)
    layout = read_layout(Content(state.body, "of the coordinator's state"), done)
    return key_parameters(site.run.experiment, layout)


def _label(topic: Topic, maker: str, recipient: str, public: PublicContext) -> str:
    """What a sealed key is for; no part of it can have the sign between them."""
    parts = ("consilium run key v1", topic.consortium, topic.run, str(topic.attempt), topic.plan)
    return "|".join((*parts, maker, recipient, public.key_id))


def _told(public: PublicContext) -> bytes:
    return json.dumps(public.to_json(), sort_keys=True).encode()
