"""key-verdict: at the coordinator, whose key the sites of a run go on with, and who has none.

The sites take turns as makers of the key until one has made one that counts. A maker that tells of
none that counts, or of which more than half of the sites asked have signed that what it sealed to
them is no such key, is left out. A site that says so alone is believed once: the next site makes a
key too. If it takes none from that one either, it goes without. So a maker that seals noise to a
few keeps nobody out, and a site that lies of makers keeps nobody but itself out. With no more than
one site lying, of three or more, one of the makers that are tried brings all others to a key; there
are as many tries as sites at most, and without a lie one. Two makers that seal noise to the same
sites keep those out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.message import Message
from federated.protection.keys import PublicContext, parse_context
from federated.run.update_files import read_layout
from federated.stages.coordinator import Coordinator
from federated.stages.key_words import Held, held_kind, pack_roster, refused_why, told_of
from federated.stages.keys import key_parameters


@dataclass(frozen=True)
class Heard:
    """What sites have signed of the key of a maker.

    Attributes:
        maker: the site that has made it.
        public: what it has told all of it.
        holding: by site, its word that it has this key.
        refusing: the sites that have signed that they take no key from this maker, and why.
        silent: those that have signed nothing that counts, or that they have another key; and why.
    """

    maker: str
    public: PublicContext
    holding: Mapping[str, Message]
    refusing: Mapping[str, str]
    silent: Mapping[str, str]

    @property
    def asked(self) -> int:
        """The number of sites that were to take the key, the maker among them."""
        return len(self.holding) + len(self.refusing) + len(self.silent)


def hear(coordinator: Coordinator, maker: str, sites: Sequence[str], done: int) -> Heard:
    """Read what ``sites`` have signed of the key of a maker; ``done`` rounds are done.

    Raises:
        ConsiliumError: the maker has told of no key that counts.
    """
    topic, receive = coordinator.topic(0), coordinator.mailbox.receive
    # What is told to the coordinator alone is not looked at: no site would take it.
    told = receive(topic, kinds.KEY, maker, kinds.MOST_HELD, for_all=True).body
    public = parse_context(told, maker)
    experiment = coordinator.run.experiment
    expected = key_parameters(experiment, read_layout(coordinator.folder.state_path(done), done))
    if public.parameters != expected:
        raise RefusalError(
            f"{maker} tells of a key for {public.parameters.describe()}, and other parameters "
            "follow from the plan of the run."
        )
    if told_of(public) != told:
        raise RefusalError(f"What {maker} tells of its key is not written as it should be.")
    kind = held_kind(coordinator.run.sites, maker)
    heard = Heard(maker, public, holding := {}, refusing := {}, silent := {})
    for site in sites:
        try:
            message = receive(topic, kind, site, kinds.MOST_HELD)
        except RefusalError as error:
            silent[site] = str(error)
            continue
        if message.body == told:
            holding[site] = message
        elif why := refused_why(message.body):
            refusing[site] = why
        else:
            silent[site] = (
                f"{site} has signed that it has another key than {maker} has told of: one of the "
                "two lies."
            )
    return heard


@dataclass
class KeySearch:
    """Which sites have no key in an attempt, over the makers that are tried.

    Attributes:
        lacking: the sites that have none, and why.
        doubting: those that have signed once that a maker's key is none, and why.
    """

    lacking: dict[str, str] = field(default_factory=dict)
    doubting: dict[str, str] = field(default_factory=dict)

    def settles(self, heard: Heard, last: bool) -> bool:
        """Whether the sites go on with a maker's key; if not, the next one makes another.

        Args:
            heard: what they have signed of it.
            last: whether there is no other maker.
        """
        refusing = heard.refusing
        if 2 * len(refusing) > heard.asked:
            self.lacking[heard.maker] = (
                f"{heard.maker} has made a key of which {len(refusing)} of {heard.asked} sites "
                "have signed that they cannot take it; the first said: "
                f"{next(iter(refusing.values()))}"
            )
            return False
        self.lacking |= heard.silent
        for site in refusing:
            if site in self.doubting:
                self.lacking[site] = self.doubting[site]
        first = {site: why for site, why in refusing.items() if site not in self.doubting}
        if first and not last:
            self.doubting |= first
            return False
        self.lacking |= first
        return True


def relay_held(coordinator: Coordinator, heard: Heard) -> Held:
    """Pass on to all sites which of them have signed that they have a maker's key."""
    messages = list(heard.holding.values())
    body = pack_roster(heard.maker, messages)
    coordinator.mailbox.send(coordinator.topic(0), kinds.KEY_ROSTER, body)
    return Held(heard.public, frozenset(heard.holding))
