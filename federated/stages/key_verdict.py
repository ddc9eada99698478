"""key-verdict: at the coordinator, whose key the sites of a run go on with, and who has none.

The sites take turns as makers of the key. Where a site signs that what a maker has sealed to it is
no such key, one of the two lies, and nobody else can see which. So nobody is left out for one such
word: the next site makes a key too, until there is one that no site refuses but those that lie for
certain (``conflicts.py``), by what all have signed of all makers, if fewer than half of the sites
lie. These are left out, whether they have made keys or refused them. If there is none when all have
made one, it is the key that the fewest refuse, and these go without. Without a lie one try is
enough.

Of up to eight sites a key is found that keeps out nobody but liars, if fewer than half of them lie;
of more, if so many lie together as to contradict nearly all, the last rule can keep an honest site
out. Of two sites one that lies leaves no sum of two, whichever of them it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from federated.errors import RefusalError
from federated.exchange import kinds
from federated.exchange.message import Message
from federated.protection.keys import PublicContext, parse_context
from federated.run.update_files import read_layout
from federated.stages.conflicts import certain_liars, most_liars
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
        parties: how many sites the plan of the run has.
        lacking: the sites that have none, and why.
        tried: what sites have signed of the makers so far, in order.
    """

    parties: int
    lacking: dict[str, str] = field(default_factory=dict)
    tried: list[Heard] = field(default_factory=list)

    def settles(self, heard: Heard, last: bool) -> Heard | None:
        """With whose key the sites go on; ``None`` if the next site makes another.

        It can be that of an earlier maker, of which it has turned out who lies.

        Args:
            heard: what they have signed of the last maker's.
            last: whether there is no other maker.
        """
        self.lacking |= heard.silent
        self.tried.append(heard)
        self._leave_out_liars()
        unrefused = (each for each in self._there() if not self._refusing(each))
        return next(unrefused, self.best() if last else None)

    def best(self) -> Heard | None:
        """The key that the fewest refuse, the first of several; those go without."""
        there = self._there()
        if not there:
            return None
        best = min(there, key=lambda each: len(self._refusing(each)))
        self.lacking |= {site: best.refusing[site] for site in self._refusing(best)}
        return best

    def _there(self) -> list[Heard]:
        return [each for each in self.tried if each.maker not in self.lacking]

    def _refusing(self, heard: Heard) -> set[str]:
        return heard.refusing.keys() - self.lacking.keys()

    def _leave_out_liars(self) -> None:
        refusals = [(heard, site) for heard in self.tried for site in heard.refusing]
        pairs = {(min(h.maker, site), max(h.maker, site)) for h, site in refusals}
        for liar in sorted(certain_liars(pairs, most_liars(self.parties))):
            if liar not in self.lacking:
                self.lacking[liar] = _contradicted(liar, self.tried)


def _contradicted(liar: str, tried: Sequence[Heard]) -> str:
    """Whom a site contradicts that lies for certain."""
    refusing = {
        site: why for each in tried if each.maker == liar for site, why in each.refusing.items()
    }
    refused = {each.maker: each.refusing[liar] for each in tried if liar in each.refusing}
    said = []
    if refusing:
        said.append(
            f"{', '.join(refusing)} have signed that they cannot take the key that it has made"
        )
    if refused:
        said.append(f"it has signed that it cannot take the keys of {', '.join(refused)}")
    first = next(iter((refusing | refused).values()))
    return (
        f"{liar} is left out: {' and '.join(said)}, and if fewer than half of the sites lie, it "
        f"does. The first said: {first}"
    )


def relay_held(coordinator: Coordinator, heard: Heard) -> Held:
    """Pass on to all sites which of them have signed that they have a maker's key."""
    messages = list(heard.holding.values())
    body = pack_roster(heard.maker, messages)
    coordinator.mailbox.send(coordinator.topic(0), kinds.KEY_ROSTER, body)
    return Held(heard.public, frozenset(heard.holding))
