"""keys: how the sites of a run come to one key of encryption, which no coordinator has.

1. ``send_sealing``: with its answer to the proposal each site sends all others, signed, the public
   half of a key of its own for this run, to which others can seal.
2. ``make_key``: one site, the maker, makes the run's key, or takes the one that it had. It tells
   all a commitment to it, and seals it to each other site that its policy knows.
3. ``take_key``: each other site opens what is sealed to it, compares it with the commitment, keeps
   it in its own home, and signs which key it has; or that it takes none from this maker, and why.
4. ``key_verdict``: the coordinator passes on what the sites have signed, or has the next site make
   a key.
5. ``site_key``: before it encrypts or opens anything, each site compares what all have signed.

What the coordinator passes on it can read none of, and whom it passes what it cannot change: each
message is signed, and is for one recipient in one attempt at one plan. docs/adr/0011 says who
notices which lie.
"""

from collections.abc import Collection, Mapping
from hashlib import sha256

from cachetools import LRUCache, cached

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import Topic
from federated.exchange.policy_checks import refuse_stranger
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
from federated.stages.key_words import Held, held_kind, open_roster, refusal, told_of
from federated.stages.site import Site, SiteCall, candidate, open_site, statistics_state
from federated.update import Layout
from federated.weights.bounded_file import Content
from federated.weights.planned import most_state


class NoKeyTakenError(RefusalError):
    """A site takes no key from its maker, by what that has sent; the site has signed so."""


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

    A run that goes on has the key that it had, unless that is lost, or the plan has other
    participants than it was made for: those who had it could open what is sent from now on, and
    others what was sent before. ``done`` is the last round that is done.

    Returns:
        To whom it is not sealed, and why: those have sent no key that counts, or are not known to
        the maker's policy.

    Raises:
        ConsiliumError: the site's own files cannot be used, or its policy allows no more to be
            sent.
    """
    site = open_site(call)
    parameters, store = _own_parameters(site, done), _store(site)
    key, known = store.find(), _participants(site)
    if key is None or key.parameters != parameters or store.made_for() != known:
        key = new_run_key(parameters)
        store.keep(key, known)
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
    told = told_of(key.public)
    site.to_all(topic, kinds.KEY, told)
    site.to_coordinator(topic, held_kind(site.run.sites, site.name), told)
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

    Where what the maker has sent is no such key, the site signs that it takes none, and why.

    Args:
        call: the site.
        maker: the site that has made the key.
        done: the last round that is done.

    Raises:
        NoKeyTakenError: what the maker has sent is missing, was changed, is for another site, run
            or attempt, is not the key that all were told of, or is one that was made for other
            participants.
        RefusalError: the maker is none of the run's sites.
        ConsiliumError: the site's own files cannot be used.
    """
    site = open_site(call)
    if maker not in site.run.sites:
        raise RefusalError(
            f"{site.name} takes no key from {maker:.80}, which is none of the sites of the run."
        )
    store, known = _store(site), _participants(site)
    parameters, private, kept = _own_parameters(site, done), store.sealing_key(), store.find()
    topic, kind = site.topic(0), held_kind(site.run.sites, maker)
    try:
        public = _told_by(site, maker, parameters)
        same = kept is not None and kept.public == public
        key = kept if same and kept else _opened(site, maker, public, private)
        before = store.made_for() if same else store.once_made_for(key)
        if before is not None and before != known:
            raise RefusalError(
                f"{site.name} takes no key from {maker}: it has had that key already, of an "
                "attempt with other participants, who could read what is sent from now on, or be "
                f"read in what was sent before. {maker} has to make another."
            )
    except ConsiliumError as error:
        site.to_coordinator(topic, kind, refusal(str(error)))
        raise NoKeyTakenError(str(error)) from error
    if key is not kept:
        store.keep(key, known)
    site.to_coordinator(topic, kind, told_of(public))


def _told_by(site: Site, maker: str, parameters: Parameters) -> PublicContext:
    """What a maker has told all of its key, which has to be one for these parameters.

    Raises:
        ConsiliumError: it is not, or nothing that counts was told to all: otherwise the maker could
            tell each site of another key.
    """
    told = site.mailbox.receive(site.topic(0), kinds.KEY, maker, kinds.MOST_HELD, for_all=True)
    public = parse_context(told.body, maker)
    if public.parameters != parameters:
        raise RefusalError(
            f"{site.name} takes no key from {maker}: it is made for {public.parameters.describe()}"
            ", and other parameters follow from the plan of the run."
        )
    if told_of(public) != told.body:
        raise RefusalError(
            f"{site.name} takes no key from {maker}: what that tells of it is not written as it "
            "should be."
        )
    return public


def _opened(site: Site, maker: str, public: PublicContext, private: bytes) -> RunKey:
    """The key that is sealed to a site, which has to be the one that all were told of.

    Raises:
        RefusalError: it is not, or none that SEAL can read.
    """
    topic = site.topic(0)
    most = most_key_bytes(public.parameters) + OVERHEAD
    sealed = site.mailbox.receive(topic, kinds.SEALED_KEY, maker, most).body
    label = _label(topic, maker, site.name, public)
    try:
        content = open_sealed(private, sealed, label)
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


def held_key(site: Site) -> Held:
    """The run's key by what all sites have signed, compared at a site.

    Raises:
        RefusalError: this site's word is not among them, one is not signed by a site of the run, or
            two are of different keys.
    """
    topic = site.topic(0)
    most = kinds.most_bundle(len(site.run.sites), kinds.MOST_HELD)
    content = site.from_coordinator(topic, kinds.KEY_ROSTER, most).body
    told = _signed_bodies(content, topic, site.run.sites, site.mailbox.members)
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


def _bundle_key(
    content: bytes, topic: Topic, *_: tuple[str, ...] | Enrolment
) -> tuple[bytes, Topic]:
    # Sites and members follow from the plan of the run, which the topic has the digest of.
    return sha256(content).digest(), topic


# In a worker there are stages of several sites, which are all told the same.
_bundles: LRUCache[tuple[bytes, Topic], Mapping[str, bytes]] = LRUCache(maxsize=4)


@cached(_bundles, key=_bundle_key)
def _signed_bodies(
    content: bytes, topic: Topic, sites: tuple[str, ...], members: Enrolment
) -> Mapping[str, bytes]:
    return open_roster(content, topic, sites, members)


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


def _participants(site: Site) -> frozenset[bytes]:
    """The public keys of all sites of the run, by its plan."""
    members = site.mailbox.members.members
    return frozenset(members[name].identity.key for name in site.run.sites)


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
