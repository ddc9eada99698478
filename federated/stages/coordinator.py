"""The coordinator of a run, as its stages see it: the run's folder, its mailbox, the signed plan.

A stage at the coordinator is handed a :class:`Coordinator` and nothing of a site's. What it needs
to know of a site it takes from that site's signed messages.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from math import isclose
from typing import Any

from federated.configuration.compatibility import refuse
from federated.data.dataset import DataSource
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import FolderExchange
from federated.exchange.identity import COORDINATOR, Identity, own_identity
from federated.exchange.mailbox import Mailbox
from federated.exchange.message import Topic
from federated.exchange.plan import Joining, RoundPlan, RunPlan
from federated.files import PRIVATE, read_json, write_json
from federated.privacy.accounting import Release
from federated.protection.tag_proofs import commitment, new_challenge
from federated.provenance import code_digest
from federated.rounds.context import Purpose, RunContext
from federated.rounds.participation import POOLED
from federated.run.folder import RunFolder
from federated.run.record_file import read_record
from federated.run.selection import kept_round
from federated.settings.sections import Parties
from federated.stages.named_sums import EVALUATION, FINAL, STATISTICS
from federated.stages.plan_checks import release_of

# By the kind of plan that asks for it, the name of a sum.
SUMS = {
    kinds.ROUND_PLAN: "",
    kinds.EVALUATION_PLAN: EVALUATION.name,
    kinds.STATISTICS_PLAN: STATISTICS.name,
    kinds.FINAL_SUM_PLAN: FINAL.name,
}


@dataclass(frozen=True)
class Coordinator:
    """The coordinator in one attempt at a run.

    Attributes:
        folder: the run's folder.
        mailbox: what it sends and receives by.
        run: what is known of the run.
        start: what its messages have in common; with the digest of the plan that was signed.
        published: the digests of the states that all sites were sent in this attempt.
        absent: the sites that were proposed to take part and do not, and why.
        sources: where the data of each site come from, by its own word, as ``phantom``.
        faulty: the sites that have made a round's sum one that nobody opens, and why; what they
            send counts no more in this attempt.
        false_openers: the sites that have opened a sum otherwise than most, which are asked last.
        challenges: by round and name of a sum, what may be asked of the tags of its payloads; the
            name is empty for the sum of updates.
        begun: when each round of this attempt was planned, in seconds since the epoch.
    """

    folder: RunFolder
    mailbox: Mailbox
    run: RunContext
    start: Topic
    published: dict[int, str] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, DataSource] = field(default_factory=dict)
    faulty: dict[str, str] = field(default_factory=dict)
    false_openers: set[str] = field(default_factory=set)
    challenges: dict[tuple[int, str], bytes] = field(default_factory=dict)
    begun: dict[int, float] = field(default_factory=dict)
    _records: list[dict[str, Any]] = field(default_factory=list)

    def records(self) -> list[dict[str, Any]]:
        """The records of the rounds that are done, in order, each read once in an attempt.

        What is of a single site is left out of them.

        Raises:
            ConsiliumError: one of them is damaged or something else.
        """
        known, folder = self._records, self.folder
        while (path := folder.record_path(len(known) + 1)).is_file():
            known.append(read_record(path, len(known) + 1, sites=()))
        return list(known)

    def topic(self, round_number: int) -> Topic:
        """What the messages of a round have in common that answer to the plan of the run."""
        return replace(self.start, round=round_number)

    def note_left_out(self, topic: Topic, site: str, reason: str) -> None:
        """Write down that something of a site does not count, and why."""
        said = {"run": topic.run, "round": topic.round, "sender": site, "said": reason}
        self.mailbox.audit.add("left out", **said)


def coordinator_identity(folder: RunFolder) -> Identity:
    """The coordinator with its private key, which is made if it is not there.

    Raises:
        ConsiliumError: others can open it, or it is damaged.
    """
    place = folder.coordinator_path
    return own_identity(COORDINATOR, place / "identity.key", place)


def propose(
    folder: RunFolder,
    members: Enrolment,
    sites: Sequence[str],
    purpose: Purpose = "training",
) -> Coordinator:
    """Begin an attempt at a run: sign what is proposed to the sites, and send it.

    Args:
        folder: the run's.
        members: the enrolled sites.
        sites: those that are to take part, in order.
        purpose: what the run is for.

    Raises:
        ConsiliumError: a file of the run is missing or damaged, or a site is not enrolled.
    """
    identity, exchange = coordinator_identity(folder), FolderExchange(folder.exchange_path)
    audit = AuditLog(folder.coordinator_path / "audit.jsonl")
    known = folder.case_counts().sites
    counts = CaseCounts({site: known[site] for site in sites})
    mailbox = Mailbox(identity, members, exchange, audit)
    return propose_by(mailbox, folder, tuple(sites), counts, purpose)


def propose_by(
    mailbox: Mailbox,
    folder: RunFolder,
    sites: tuple[str, ...],
    counts: CaseCounts,
    purpose: Purpose = "training",
) -> Coordinator:
    """Begin an attempt at a run by a mailbox of the coordinator's, as :func:`propose` does.

    Args:
        mailbox: the coordinator's, with its members.
        folder: the run's.
        sites: those that are to take part, in order.
        counts: how many cases each has; none at all where it is for the sites to say.
        purpose: what the run is for.

    Raises:
        ConsiliumError: a file of the run is missing or damaged, or a site is not enrolled.
    """
    run = RunContext(folder.run_id, folder.experiment(), counts, sites, {}, purpose)
    before = Topic(mailbox.me.public.consortium, folder.run_id, _next_attempt(folder))
    sent = mailbox.send(before, kinds.PROPOSAL, _plan(run, mailbox.members).to_bytes())
    return Coordinator(folder, mailbox, run, replace(before, plan=sent.signed.digest))


def plan_run(
    proposed: Coordinator, refused: Mapping[str, str] | None = None
) -> tuple[Coordinator, dict[str, list[str]]]:
    """Sign the plan of a run, once the sites have answered what was proposed to them.

    A site that has not answered, or whose answer does not count, does not take part in the run: the
    plan is that of the others.

    Args:
        proposed: the coordinator that has proposed the run.
        refused: why sites have refused to take part, as far as they have told.

    Returns:
        The coordinator from then on, and for each site what a person should know of its privacy.

    Raises:
        ConsiliumError: too few sites take part for such a run.
    """
    run, mailbox = proposed.run, proposed.mailbox
    answers: dict[str, Joining] = {}
    absent: dict[str, str] = {}
    for site in run.sites:
        try:
            answers[site] = _joining(proposed, site)
        except ConsiliumError as error:
            absent[site] = (refused or {}).get(site, str(error))
            proposed.note_left_out(proposed.start, site, absent[site])
    if absent:
        _refuse_too_few(run, list(answers), absent)
    releases = {site: own.release for site, own in answers.items() if own.release is not None}
    counts = CaseCounts({site: answer.counts for site, answer in answers.items()})
    planned = replace(run, sites=tuple(answers), counts=counts, planned=releases)
    before = replace(proposed.start, plan="")
    sent = mailbox.send(before, kinds.RUN_PLAN, _plan(planned, mailbox.members).to_bytes())
    if releases:
        told: Mapping[str, Any] = {
            site: {**asdict(releases[site]), "warnings": list(answers[site].warnings)}
            for site in releases
        }
        write_json(proposed.folder.privacy_path, told)
    start = replace(before, plan=sent.signed.digest)
    sources = {site: own.source for site, own in answers.items()}
    coordinator = replace(proposed, run=planned, start=start, absent=absent, sources=sources)
    return coordinator, {site: list(own.warnings) for site, own in answers.items()}


def _joining(proposed: Coordinator, site: str) -> Joining:
    """What a site has answered to the proposal.

    Raises:
        ConsiliumError: it has not, or has other numbers of cases than it is known for, or releases
            something else in a round than follows from these.
    """
    run = proposed.run
    message = proposed.mailbox.receive(proposed.start, kinds.JOINING, site, kinds.MOST_SMALL)
    answer = Joining.from_bytes(message.body)
    known = run.counts.sites.get(site, answer.counts)
    if dict(answer.counts) != dict(known):
        raise ConsiliumError(
            f"{site} says that it has {dict(answer.counts)} cases, and is known for "
            f"{dict(known)}, by which updates are weighted. Prepare its data anew, and start a new "
            "run."
        )
    training = run.purpose == "training"
    expected = release_of(run.experiment, answer.counts["train"]) if training else None
    if not _same_release(answer.release, expected):
        raise ConsiliumError(
            f"{site} says that it releases {answer.release} in a round, and by the configuration "
            f"and its number of cases it is {expected}. It may have another version of the program."
        )
    return answer


def _same_release(told: Release | None, expected: Release | None) -> bool:
    """Whether a release is the expected one, but for what another processor may round."""
    if told is None or expected is None:
        return told is expected
    pairs = zip(astuple(told), astuple(expected), strict=True)
    return all(isclose(one, other, rel_tol=1e-6) for one, other in pairs)


def absence_lines(absent: Mapping[str, str], what: str) -> list[str]:
    """A line for each site that does not take part in ``what``, with the reason.

    A site's own refusal says by itself that it does not.
    """
    return [
        reason
        if reason.startswith(f"{site} does not take part")
        else f"{site} does not take part in {what}: {reason}"
        for site, reason in absent.items()
    ]


def _refuse_too_few(run: RunContext, sites: Sequence[str], absent: Mapping[str, str]) -> None:
    """Refuse a run in which only ``sites`` would take part.

    Raises:
        ConsiliumError: a run of so many sites could not be configured, or its strategy pools the
            cases of all.
    """
    said = "; ".join(
        reason if reason.startswith(f"{site} ") else f"{site}: {reason}"
        for site, reason in absent.items()
    )
    missing = f"Of {len(run.sites)} sites only {len(sites)} take part in run {run.run_id}. {said}"
    experiment = run.experiment
    if not sites:
        raise ConsiliumError(missing)
    if experiment.strategy.pools_cases and run.purpose == "training":
        raise ConsiliumError(
            f"{missing} With strategy.name={experiment.strategy.name} the cases of all sites are "
            "trained on together, so there is no run without one of them."
        )
    fewer = experiment.sites.model_copy(update={"count": len(sites)})
    try:
        refuse(experiment.model_copy(update={"sites": fewer}), f"a run of {len(sites)} sites")
    except ConsiliumError as error:
        raise ConsiliumError(f"{missing} These are too few. {error}") from error


def publish_state(coordinator: Coordinator, round_number: int) -> str:
    """Send all sites the state after a round; return its SHA-256."""
    published = coordinator.published
    if round_number not in published:
        content = coordinator.folder.state_path(round_number).read_bytes()
        sent = coordinator.mailbox.send(coordinator.topic(round_number), kinds.STATE, content)
        published[round_number] = sent.header.sha256
    return published[round_number]


def begin_round(
    coordinator: Coordinator, round_number: int, responded: Sequence[str] = ()
) -> Topic:
    """Sign the plan of a round, and send it with the state that the round starts from.

    Where the round before has no record yet, ``responded`` are in its sum.

    Returns:
        What the messages of the round have in common.
    """
    done = round_number - 1
    coordinator.begun[round_number] = time.time()
    selected = coordinator.run.selected(round_number)
    return _ask(coordinator, kinds.ROUND_PLAN, round_number, done, selected, responded)


def ask_evaluation(coordinator: Coordinator, round_number: int, responded: Sequence[str]) -> Topic:
    """Ask all sites to evaluate the state after a round; ``responded`` are in its sum.

    Returns:
        What the messages of the evaluation have in common.
    """
    sites = coordinator.run.sites
    kind = kinds.EVALUATION_PLAN
    return _ask(coordinator, kind, round_number, round_number, sites, responded)


def ask_statistics(coordinator: Coordinator) -> Topic:
    """Ask all sites to count their cases, in a sum.

    Returns:
        What the messages of that sum have in common.
    """
    coordinator.begun[1] = time.time()
    topic = _ask(coordinator, kinds.STATISTICS_PLAN, 1, 0, coordinator.run.sites)
    return replace(topic, sum=STATISTICS.name)


def end_run(coordinator: Coordinator) -> Topic:
    """Tell all sites, after the last round, which round's model the run keeps.

    Returns:
        What the messages of the run's end have in common.
    """
    records = coordinator.records()
    kept = kept_round(records, coordinator.run.experiment.selection)
    sites, kind = coordinator.run.sites, kinds.FINAL_PLAN
    return _ask(coordinator, kind, len(records), kept, sites)


def ask_final_sum(coordinator: Coordinator) -> Topic:
    """Ask all sites, after the last round, for a sum of their test cases by the model that is kept.

    Returns:
        What the messages of that sum have in common.
    """
    records = coordinator.records()
    kept = kept_round(records, coordinator.run.experiment.selection)
    sites, kind = coordinator.run.sites, kinds.FINAL_SUM_PLAN
    return replace(_ask(coordinator, kind, len(records), kept, sites), sum=FINAL.name)


def end_attempt(coordinator: Coordinator) -> None:
    """Tell all sites, and whoever carries messages, that nothing more of this attempt is wanted."""
    coordinator.mailbox.send(replace(coordinator.start, plan=""), kinds.ENDED, b"{}")


def _ask(
    coordinator: Coordinator,
    kind: str,
    round_number: int,
    state: int,
    sites: Sequence[str],
    responded: Sequence[str] = (),
) -> Topic:
    """Sign what sites are to do in a round or after it, and send it with the state.

    Args:
        coordinator: the coordinator.
        kind: the kind of plan.
        round_number: the round.
        state: the round whose state is meant.
        sites: those that are asked.
        responded: those in the sum of the round of that state, where it has no record yet.
    """
    records = coordinator.records()
    last = {site: record["round"] for record in records for site in record["sites"]}
    last |= dict.fromkeys(responded, state)
    kept = kept_round(records, coordinator.run.experiment.selection) if records else 0
    digest = publish_state(coordinator, state)
    committed = ""
    summed = SUMS.get(kind)
    if summed is not None and coordinator.run.experiment.protection.keyed:
        # Asked twice in an attempt, it is the same: of two plans in one place none counts.
        challenge = coordinator.challenges.setdefault((round_number, summed), new_challenge())
        committed = commitment(challenge)
    plan = RoundPlan(
        coordinator.start.plan, round_number, tuple(sites), digest, last, kept, committed
    )
    topic = coordinator.topic(round_number)
    sent = coordinator.mailbox.send(topic, kind, plan.to_bytes())
    return replace(topic, state=digest, plan=sent.signed.digest)


def _plan(run: RunContext, members: Enrolment) -> RunPlan:
    pools = run.experiment.strategy.pools_cases and run.purpose == "training"
    names = [*run.sites, POOLED] if pools else list(run.sites)
    unknown = [name for name in names if members.standing(name) != "enrolled"]
    if unknown:
        raise ConsiliumError(
            f"{', '.join(unknown)} cannot take part in run {run.run_id}: not enrolled, or "
            "suspended."
        )
    participants = {name: members.members[name].identity for name in names}
    runner = run.experiment.runner
    parties = runner if isinstance(runner, Parties) else None
    fewest = getattr(run.experiment.protection, "min_sites", 1)
    return RunPlan(
        run.experiment,
        code_digest(),
        participants,
        run.counts,
        run.planned,
        max(fewest, parties.quorum if parties else 1),
        parties.deadline if parties else None,
        run.purpose,
    )


def _next_attempt(folder: RunFolder) -> int:
    """The number of this attempt at the run, from 1, which is written down first."""
    path = folder.coordinator_path / "attempt.json"
    attempt = int(read_json(path)) + 1 if path.is_file() else 1
    write_json(path, attempt, PRIVATE)
    return attempt
