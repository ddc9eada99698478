"""The part of a round's graph that SecAgg+ adds before the updates and after their sum.

Before them, advertise at every site → relay keys → share at every site → relay shares, and then
follows what every round has. Between aggregate and evaluate come relay responded → agree at every
site → relay views → answer at every site → unmask. However the round ends, forget follows: the
sites erase what is secret of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from federated.errors import NobodyLeftError, TooFewSitesError
from federated.exchange.message import Topic
from federated.run.result import Outcome
from federated.settings.sections import Parties
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import Roster
from flows.progress import tell
from flows.site_stages import Finished, Run, SiteStages, are_grouped, in_groups, wait_for
from tasks.secagg import (
    Unmasked,
    advertise,
    agree,
    answer,
    forget,
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    share,
    unmask,
)

# What a site does for the task of a name, where sites are too many for task runs of their own.
GROUPED = {
    each.what: each
    for each in (
        SiteStages("advertise", (advertise_site,), "advertise"),
        SiteStages("share", (share_site,), "share"),
        SiteStages("agree", (agree_site,), "agree"),
        SiteStages("answer", (answer_site,), "answer"),
    )
}


@contextmanager
def forgotten_secrets(run: Run, selected: Sequence[str]) -> Iterator[None]:
    """A round in which sites mask; their secrets are erased at its end, however it ends."""
    calls = [run.call(site) for site in selected]
    try:
        yield
    except BaseException:
        # What broke the round off is what a person has to read, and may have broken the pool too.
        with suppress(Exception):
            forget(run.pool, calls)
        raise
    forget(run.pool, calls)


@dataclass(frozen=True)
class Exchanged:
    """What stages 1 and 2 came to: who takes part, and what sites report or why they dropped out.

    ``roster`` is ``None`` where sites do not mask. ``lost`` says why there will be no sum, where
    too few sites of a consortium are left for one.
    """

    roster: Roster | None
    finished: Finished
    lost: str | None = None


def exchange_keys(run: Run, topic: Topic, selected: Sequence[str], after: Any = None) -> Exchanged:
    """Run stages 1 and 2; whoever is not dropped afterwards masks with its neighbours.

    Where sites do not mask, nothing is run and nobody is dropped. ``after`` is what the task before
    has returned, from which the graph has an edge: the topic if left out.

    Raises:
        TooFewSitesError: fewer sites are left than the threshold, and they are no parties of their
            own; the message names those missing.
    """
    if not run.experiment.protection.masked:
        return Exchanged(None, Finished([], {}))
    first = _at_every(run, topic, advertise, selected, after=after)
    advertised = [site for site in selected if site not in first.dropped]
    results, dropped = list(first.results), dict(first.dropped)
    try:
        roster = relay_keys(run.quoted, topic, advertised, wait_for=first.tasks)
        second = _at_every(run, topic, share, list(roster.advertised), after=roster)
        results += second.results
        dropped |= second.dropped
        sharing = [site for site in roster.advertised if site not in second.dropped]
        roster = relay_shares(run.quoted, topic, roster, sharing, wait_for=second.tasks)
    except TooFewSitesError as error:
        if not isinstance(run.experiment.runner, Parties):
            raise
        return Exchanged(None, Finished(results, dropped), str(error))
    for site in selected:
        if site not in roster.sharing:
            dropped.setdefault(site, "what it sent of its keys did not count")
    return Exchanged(roster, Finished(results, dropped))


def unmask_sum(
    run: Run, topic: Topic, roster: Roster, responded: Sequence[str], after: Any
) -> tuple[list[Outcome], Unmasked]:
    """Run stages 4 and 5: unmask the sum of those who ``responded``; of updates, write the state.

    ``after`` is what the task before has returned, from which the graph has an edge.

    Before a site answers, enough others have to have signed that they were told the same.

    A site that fails to answer is not missing from the sum, while enough others do answer.

    Returns:
        What the sites did for it, and what came of it.

    Raises:
        ConsiliumError: too few sites answer; the message names whose shares are missing.
    """
    told = relay_responded(run.quoted, topic, roster, list(responded), wait_for=[after])
    views = _at_those_left(run, topic, agree, responded, roster, told)
    agreeing = [site for site in responded if site not in views.dropped]
    shown = relay_views(run.quoted, topic, agreeing, wait_for=views.tasks)
    answers = _at_those_left(run, topic, answer, agreeing, roster, shown)
    answering = [site for site in agreeing if site not in answers.dropped]
    done = unmask(run.quoted, topic, roster, list(responded), answering, wait_for=answers.tasks)
    if done.lost is None:
        for site in done.faulty:
            tell(f"{site} has sent wrong shares in round {topic.round}; the sum is right without")
    return [*views.results, *answers.results], done


def _at_those_left(
    run: Run, topic: Topic, stage: Any, sites: Sequence[str], roster: Roster, after: Any
) -> Finished:
    """As :func:`_at_every`; where nobody goes on, those who were missing before are why, mostly."""
    try:
        return _at_every(run, topic, stage, sites, after=after)
    except NobodyLeftError as error:
        missing = [site for site in roster.advertised if site not in sites]
        if not missing:
            raise
        raise NobodyLeftError(f"{error} Missing: {', '.join(missing)}.") from error


def _at_every(
    run: Run, topic: Topic, stage: Any, sites: Sequence[str], after: Any = None
) -> Finished:
    number, name = topic.round, topic.sum
    before = [topic if after is None else after]
    if are_grouped(run, sites):
        return in_groups(run, number, GROUPED[stage.name], sites, name, before)
    chains = {
        site: [stage.submit(run.pool, run.call(site), number, name, wait_for=before)]
        for site in sites
    }
    try:
        return wait_for(run, number, chains, name)
    except BaseException:
        # The other sites' stages are short; what they write is erased once they are done.
        for (future,) in chains.values():
            future.wait()
        raise
