"""A site in a run, as its stages see it: its home, its mailbox, and the plan that it has accepted.

A stage at a site is handed a :class:`SiteCall` and nothing of the coordinator's. What it needs to
know of the run it takes from messages that the coordinator has signed, and checks each of them
against its own policy, its own data and its own arithmetic before it does anything.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from threading import RLock

import numpy as np
from cachetools import LRUCache, cached

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import EVERYONE, FolderExchange, Place
from federated.exchange.identity import COORDINATOR, PublicIdentity
from federated.exchange.journal import JOURNAL, JournalledExchange
from federated.exchange.mailbox import Mailbox
from federated.exchange.message import (
    Message,
    MessageRefusedError,
    Topic,
    differences,
    open_message,
)
from federated.exchange.plan import RoundPlan, RunPlan
from federated.exchange.policy_checks import refuse_to_send
from federated.files import PRIVATE, atomic_path
from federated.rounds.context import RoundContext, RunContext
from federated.run.selection import is_evaluated
from federated.run.update_files import read_state
from federated.site.approvals import refuse_refused
from federated.site.home import MEMORY_KINDS, WORK_KINDS, SiteHome, SiteRun, memory_round
from federated.stages.plan_checks import check_plan, refuse_other_code
from federated.stages.told_rounds import note_told, refuse_contradiction
from federated.update import Layout, RoundState
from federated.weights.bounded_file import Content
from federated.weights.planned import most_state, planned_layout


@dataclass(frozen=True)
class SiteCall:
    """Which site is to do its part of which run: what a worker is handed.

    ``attempt`` is how often the run was begun or resumed. Where ``may_enter`` is not set, nothing
    may be entered in a ledger, so that the stage does no more than send what is stored.
    """

    home: Path
    exchange: Path
    run: str
    attempt: int
    may_enter: bool = True

    @property
    def site(self) -> str:
        """The site's name."""
        return self.home.name


@dataclass(frozen=True)
class Site:
    """A site that takes part in a run."""

    home: SiteHome
    store: SiteRun
    mailbox: Mailbox
    run: RunContext
    start: Topic
    may_enter: bool = True

    @property
    def name(self) -> str:
        """The site's name."""
        return self.home.name

    @property
    def ends_with_its_run(self) -> bool:
        """Whether a power cut ends the site and its coordinator together.

        What it is in the middle of is then begun anew, and need not be there afterwards. That is so
        of simulated sites; one of a consortium goes on where it was.
        """
        exchange = self.mailbox.exchange
        return isinstance(exchange, FolderExchange) and exchange.alone

    def topic(self, round_number: int, state: str = "", plan: str | None = None) -> Topic:
        """What the messages of a round have in common.

        The ``plan`` that they answer to is that of the run where no other one is given.
        """
        own = self.start.plan if plan is None else plan
        return replace(self.start, round=round_number, state=state, plan=own)

    def from_coordinator(self, topic: Topic, kind: str, most: int = kinds.MOST_SMALL) -> Message:
        """A message of the coordinator's.

        Raises:
            ConsiliumError: none has arrived that counts.
        """
        return self.mailbox.receive(topic, kind, COORDINATOR, most)

    def to_coordinator(self, topic: Topic, kind: str, body: bytes) -> int:
        """Send the coordinator a message; return how many bytes travel.

        Raises:
            RefusalError: the site would send more in the run than its policy allows.
        """
        return self._send(topic, kind, body, COORDINATOR)

    def to_all(self, topic: Topic, kind: str, body: bytes) -> int:
        """Send all others a message; return how many bytes travel.

        Raises:
            RefusalError: the site would send more in the run than its policy allows.
        """
        return self._send(topic, kind, body, EVERYONE)

    def to_site(self, topic: Topic, kind: str, body: bytes, recipient: str) -> int:
        """Send one other site a message; return how many bytes travel.

        Raises:
            RefusalError: the site would send more in the run than its policy allows.
        """
        return self._send(topic, kind, body, recipient)

    def sent_before(
        self, topic: Topic, kind: str, most: int, recipient: str = COORDINATOR
    ) -> bytes | None:
        """The body of a message that the site has sent already; ``None`` where it has not.

        A stage that was interrupted is done again, and of two different messages in one place none
        counts. So what is made otherwise each time, as what is encrypted, is not made anew.

        Args:
            topic: what the messages have in common.
            kind: what it is.
            most: how many bytes it may have.
            recipient: whom it is for.
        """
        own = topic.kind(kind)
        place = Place(topic.run, topic.round, topic.attempt, recipient, own, self.name)
        for path in self.mailbox.exchange.find(place):
            with suppress(MessageRefusedError, FileNotFoundError), open_message(path) as unread:
                if not differences(unread.header, topic, kind, recipient):
                    return unread.read(self.mailbox.me.public, most).body
        return None

    def _send(self, topic: Topic, kind: str, body: bytes, recipient: str) -> int:
        sent = self.store.count_sent(len(body), durable=not self.ends_with_its_run)
        refuse_to_send(self.home.policy(), self.name, sent)
        return self.mailbox.send(topic, kind, body, recipient).size


@dataclass(frozen=True)
class SiteRound:
    """A round at a site: what it starts from, and what its messages have in common."""

    context: RoundContext
    topic: Topic
    plan: RoundPlan

    @property
    def selected(self) -> tuple[str, ...]:
        """The sites that train in the round, in order."""
        return self.plan.selected


def candidate(call: SiteCall) -> tuple[Site, RunPlan]:
    """The site of a call before it has accepted a plan, and the run that is proposed to it.

    Raises:
        ConsiliumError: nothing is proposed to it that counts.
    """
    home, mailbox, before = _before(call)
    message = _proposal(mailbox, before)
    plan = _plan(message)
    start = replace(before, plan=message.signed.digest)
    known = _known(call, plan)
    return Site(home, home.run(call.run), mailbox, known, start, call.may_enter), plan


def open_site(call: SiteCall) -> Site:
    """The site of a call, with the plan of the run, which it accepts if it has not done so.

    Raises:
        ConsiliumError: there is no plan, or the site does not accept it.
    """
    home, mailbox, before = _before(call)
    store = home.run(call.run)
    message = mailbox.receive(before, kinds.RUN_PLAN, COORDINATOR, kinds.MOST_PLAN)
    plan, content, digest = _plan(message), message.to_bytes(), message.signed.digest
    proposal = _plan(_proposal(mailbox, before))
    if not store.plan_path.is_file() or store.plan_path.read_bytes() != content:
        check_plan(home, store, plan, proposal)
        # Where the coordinator is gone with the site, the run goes on by another plan.
        alone = isinstance(mailbox.exchange, FolderExchange) and mailbox.exchange.alone
        with atomic_path(store.plan_path, PRIVATE, durable=not alone) as temporary:
            temporary.write_bytes(content)
        home.audit.add("accepted", run=call.run, attempt=call.attempt, plan=digest)
    refuse_refused(home, store, proposal)
    refuse_other_code(home, plan)
    members = _members(mailbox.members.members[COORDINATOR].identity, message)
    known, start = _known(call, plan), replace(before, plan=digest)
    return Site(home, store, replace(mailbox, members=members), known, start, call.may_enter)


def known_runs(call: SiteCall) -> list[RunContext]:
    """The run that is proposed to a site, and the one that it accepted.

    The coordinator may propose another run later; what the site does is by the plan it accepted.
    """
    found = []
    with suppress(ConsiliumError):
        found.append(candidate(call)[0].run)
    home = SiteHome(call.home)
    with (
        suppress(ConsiliumError, FileNotFoundError),
        open_message(home.run(call.run).plan_path) as unread,
    ):
        accepted = unread.read(home.coordinator(), kinds.MOST_PLAN)
        found.append(_known(call, _plan(accepted)))
    return found


def _proposal(mailbox: Mailbox, before: Topic) -> Message:
    """What is proposed to a site in an attempt at a run.

    Raises:
        ConsiliumError: nothing is that counts.
    """
    return mailbox.receive(before, kinds.PROPOSAL, COORDINATOR, kinds.MOST_PLAN)


def _before(call: SiteCall) -> tuple[SiteHome, Mailbox, Topic]:
    """A site that knows nobody but the coordinator."""
    home = SiteHome(call.home)
    coordinator = home.coordinator()
    members = Enrolment().enrol(coordinator)
    # A site of a consortium has a copy of the exchange, whose journal says what is to be sent on.
    journalled = (call.exchange / JOURNAL).is_file()
    exchange = (JournalledExchange if journalled else FolderExchange)(call.exchange)
    mailbox = Mailbox(home.identity(), members, exchange, home.audit)
    return home, mailbox, Topic(coordinator.consortium, call.run, call.attempt)


def _known(call: SiteCall, plan: RunPlan) -> RunContext:
    return RunContext(
        call.run, plan.experiment, plan.counts, plan.sites, plan.releases, plan.purpose
    )


# What a process keeps of what it has read, each a function of bytes that were checked against their
# SHA-256. In a worker there are stages of many sites, which are all told the same.
_reading = RLock()


@cached(LRUCache(maxsize=8), key=lambda message: message.header.sha256, lock=_reading)
def _plan(message: Message) -> RunPlan:
    """The plan in a message that was read, so that its body is the one that was signed."""
    return RunPlan.from_bytes(message.body)


@cached(LRUCache(maxsize=8), key=lambda message: message.header.sha256, lock=_reading)
def _round_plan(message: Message) -> RoundPlan:
    return RoundPlan.from_bytes(message.body)


@cached(
    LRUCache(maxsize=8),
    key=lambda coordinator, message: (coordinator, message.header.sha256),
    lock=_reading,
)
def _members(coordinator: PublicIdentity, message: Message) -> Enrolment:
    """Whom a site knows that has accepted a plan: the coordinator that it knew, and who is in it.

    Raises:
        ConsiliumError: somebody in it has the coordinator's key, or its name.
    """
    return Enrolment().enrol(coordinator, *_plan(message).participants.values())


@cached(LRUCache(maxsize=8), key=lambda site, number: (site.start.plan, number), lock=_reading)
def _selected(site: Site, round_number: int) -> tuple[str, ...]:
    """The sites that are selected in a round by the plan that a site has accepted."""
    return tuple(site.run.selected(round_number))


def _refuse_beyond(site: Site, round_number: int) -> None:
    """Refuse a round that the plan of the run, which the site's policy allows, does not have.

    Raises:
        RefusalError: it has fewer, or it is none; or the run is for statistics and has no rounds.
    """
    refuse_statistics(site)
    rounds = site.run.experiment.rounds
    if not 1 <= round_number <= rounds:
        raise RefusalError(
            f"{site.name} does nothing in round {round_number}: the plan of the run has "
            f"{rounds} rounds."
        )


def refuse_statistics(site: Site) -> None:
    """Refuse what belongs to a training in a run for statistics, whose policy was asked no more.

    Raises:
        RefusalError: the run is for statistics.
    """
    if site.run.purpose != "training":
        raise RefusalError(
            f"{site.name} trains, evaluates and tells nothing else in run {site.run.run_id}, by "
            "whose plan cases are counted for statistics."
        )


def open_round(site: Site, round_number: int) -> SiteRound:
    """A round that the coordinator has planned, with the state that it starts from.

    Raises:
        ConsiliumError: there is no plan of that round that counts, or the run has fewer rounds, or
            it selects other sites than those that follow from the plan of the run, or the state is
            another.
    """
    _refuse_beyond(site, round_number)
    plan, topic = _read_plan(site, round_number, kinds.ROUND_PLAN)
    expected = _selected(site, round_number)
    if plan.selected != expected:
        raise RefusalError(
            f"{site.name} does nothing in round {round_number}: its plan selects "
            f"{', '.join(plan.selected) or 'nobody':.200}, and {', '.join(expected):.200} follow "
            "from the plan of the run."
        )
    if site.name not in plan.selected:
        raise RefusalError(
            f"{site.name} is not selected in round {round_number}; it sends nothing."
        )
    state = open_state(site, round_number - 1, plan.state)
    return SiteRound(RoundContext(site.run, state), topic, plan)


# In a worker there are stages of several sites, which all start from the same state.
_states: LRUCache[str, RoundState] = LRUCache(maxsize=2)


def open_state(site: Site, round_number: int, digest: str) -> RoundState:
    """The state after a round, as the coordinator has sent it to all; it has to have this digest.

    Raises:
        ConsiliumError: it has not arrived, is another one, is damaged, or has other tensors than
            the model of the run's plan.
    """
    if digest not in _states or _states[digest].round_number != round_number:
        _states[digest] = _read_state(site, round_number, digest)
    # What it left out would be in a site's model from before, and be no part of the state.
    if _states[digest].layout != planned_layout(site.run.experiment):
        raise RefusalError(
            f"{site.name} does not go on from the state after round {round_number}: it has other "
            "tensors than the model of the run's plan."
        )
    return _states[digest]


def _read_state(site: Site, round_number: int, digest: str) -> RoundState:
    most = most_state(site.run.experiment)
    message = site.from_coordinator(site.topic(round_number), kinds.STATE, most)
    if message.header.sha256 != digest:
        raise RefusalError(
            f"{site.name} does not go on from the state after round {round_number}: it is another "
            "one than the coordinator's plan says."
        )
    where = f"of the coordinator's state after round {round_number}"
    return read_state(Content(message.body, where), round_number)


def settle(site: Site, done: int, plan: RoundPlan) -> None:
    """Leave what the site keeps as it was before a round that it dropped out of; forget old rounds.

    A round is done once the coordinator has its record, and a site that evaluates it does not know
    that: what the round began with is kept until the next one begins.

    This is for before a round's training, and for after it: ``done`` is the last round that is
    done, and ``plan`` says who responded when, and which round's model the run keeps so far. A site
    may have been asked nothing since the round that it dropped out of, which need not be the last.
    """
    for kind in MEMORY_KINDS:
        paths = site.store.memory_paths(kind)
        for path in paths:
            number = memory_round(path)
            if number > plan.responded.get(site.name, 0):
                path.unlink(missing_ok=True)
        rounds = (done - 1, done, plan.kept) if kind == "memory" else (done - 1, done)
        needed = {site.store.latest_memory(number, kind) for number in rounds}
        for path in site.store.memory_paths(kind):
            if path not in needed:
                path.unlink(missing_ok=True)
    for number in range(max(0, done - 1), done + 1):
        for work in WORK_KINDS:
            site.store.work_path(number, work).unlink(missing_ok=True)


def open_evaluation(site: Site, round_number: int) -> tuple[RoundState, Topic, RoundPlan]:
    """The state after a round that the coordinator asks to have evaluated, the topic, and the plan.

    Raises:
        ConsiliumError: nothing asks for it that counts, or the state is another, or the plan of the
            run has no evaluation after that round.
    """
    experiment = site.run.experiment
    if not is_evaluated(experiment.selection, round_number, experiment.rounds):
        raise RefusalError(
            f"{site.name} tells nothing of its cases after round {round_number}: by the plan of "
            "the run the model is not evaluated there."
        )
    plan, topic = _after(site, round_number, kinds.EVALUATION_PLAN)
    return open_state(site, round_number, plan.state), topic, plan


def open_statistics(site: Site, round_number: int) -> SiteRound:
    """What the coordinator asks by that cases be counted, with all sites selected.

    No model is behind it: the state is always the same one, so that a site helps to open such sums
    of one set of sites alone, in whatever run. With noise each run has another one: what is told
    then is private by itself.

    Raises:
        ConsiliumError: nothing asks for it that counts, or the run is not for statistics.
    """
    run = site.run
    if run.purpose != "statistics" or round_number != 1:
        raise RefusalError(
            f"{site.name} counts nothing of its cases in round {round_number} of run {run.run_id}: "
            "by its plan it is for a model. Statistics are a run of their own."
        )
    plan, topic = _read_plan(site, round_number, kinds.STATISTICS_PLAN)
    state = statistics_state(run.run_id if run.experiment.statistics.epsilon else "")
    return SiteRound(RoundContext(run, state), topic, plan)


def statistics_state(release: str = "") -> RoundState:
    """What a sum for statistics starts from: no model, and with noise the ``release`` it is of."""
    number = int.from_bytes(sha256(release.encode()).digest()[:3], "big") if release else 0
    layout = Layout((("statistics", (1,)),), frozenset())
    return RoundState(0, np.array([number], np.float32), layout)


def open_end(site: Site, round_number: int) -> tuple[RoundState, Topic]:
    """The state whose model a run keeps, after its last round, and the topic of the run's end.

    Raises:
        ConsiliumError: nothing says so that counts, or the state is another.
    """
    plan, topic = _after(site, round_number, kinds.FINAL_PLAN)
    return open_state(site, plan.kept, plan.state), topic


def open_final_sum(site: Site, round_number: int) -> SiteRound:
    """What the coordinator asks for in a sum over all sites, after the last round of a run.

    Raises:
        ConsiliumError: nothing asks for it that counts, or the state is another.
    """
    plan, topic = _after(site, round_number, kinds.FINAL_SUM_PLAN)
    state = open_state(site, plan.kept, plan.state)
    return SiteRound(RoundContext(site.run, state), topic, plan)


def _after(site: Site, round_number: int, kind: str) -> tuple[RoundPlan, Topic]:
    """The plan of what comes after a round; what the site keeps is settled by it."""
    _refuse_beyond(site, round_number)
    plan, topic = _read_plan(site, round_number, kind)
    settle(site, round_number, plan)
    return plan, topic


def _read_plan(site: Site, round_number: int, kind: str) -> tuple[RoundPlan, Topic]:
    """A plan of a round, or of what comes after it, and the topic of the answers to it.

    Raises:
        ConsiliumError: there is none that counts, it is of another run or round, or it contradicts
            what the site was told before.
    """
    asked = site.topic(round_number)
    message = site.from_coordinator(asked, kind, kinds.MOST_PLAN)
    plan = _round_plan(message)
    if plan.run_plan != site.start.plan or plan.round != round_number:
        raise RefusalError(
            f"{site.name} does nothing in round {round_number}: the {kind} is of another run or "
            "round than it says."
        )
    # Of the rounds that have a record; that of an evaluation has none yet.
    done = round_number - 1 if kind == kinds.ROUND_PLAN else round_number
    refuse_contradiction(site.store, site.name, plan, done)
    if kind == kinds.ROUND_PLAN:
        note_told(site.store, plan, done)
    return plan, site.topic(round_number, plan.state, message.signed.digest)
