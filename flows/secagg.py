"""The part of a round's graph that SecAgg+ adds before the updates and after their sum.

Before them, advertise at every site → relay keys → share at every site → relay shares, and then
follows what every round has. Between aggregate and evaluate come relay responded → answer at every
site → unmask. However the round ends, forget follows: the sites erase what is secret of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from federated.run.result import StageResult
from federated.run.timing import Interval
from flows.site_stages import Finished, Run, wait_for
from tasks.secagg import (
    advertise,
    answer,
    forget,
    relay_keys,
    relay_responded,
    relay_shares,
    share,
    unmask,
)


@contextmanager
def forgotten_secrets(run: Run, selected: Sequence[str]) -> Iterator[None]:
    """A round in which sites mask; their secrets are erased at its end, however it ends."""
    root = run.folder.root
    try:
        yield
    except BaseException:
        # What broke the round off is what a person has to read, and may have broken the pool too.
        with suppress(Exception):
            forget(run.pool, root, list(selected))
        raise
    forget(run.pool, root, list(selected))


def exchange_keys(run: Run, round_number: int, selected: Sequence[str]) -> Finished:
    """Run stages 1 and 2; whoever is not in ``dropped`` afterwards masks with its neighbours.

    Raises:
        ConsiliumError: fewer sites are left than the threshold; the message names those missing.
    """
    first = _at_every(run, round_number, advertise, selected)
    advertised = [site for site in selected if site not in first.dropped]
    relay_keys(run.folder, run.context, round_number, advertised)
    second = _at_every(run, round_number, share, advertised)
    sharing = [site for site in advertised if site not in second.dropped]
    relay_shares(run.folder, run.context, round_number, sharing)
    return Finished(first.results + second.results, first.dropped | second.dropped)


def unmask_sum(
    run: Run, round_number: int, responded: Sequence[str]
) -> tuple[list[StageResult], Interval]:
    """Run stage 4: unmask the sum of those who ``responded``, and write the round's state.

    A site that fails to answer is not missing from the sum, while enough others do answer.

    Returns:
        What the sites did for it, and when the coordinator worked.

    Raises:
        ConsiliumError: too few sites answer; the message names whose shares are missing.
    """
    relay_responded(run.folder, run.context, round_number, list(responded))
    answers = _at_every(run, round_number, answer, responded)
    answering = [site for site in responded if site not in answers.dropped]
    return answers.results, unmask(
        run.folder, run.context, round_number, list(responded), answering
    )


def _at_every(run: Run, round_number: int, stage: Any, sites: Sequence[str]) -> Finished:
    chains = {site: [stage.submit(run.pool, run.folder.root, site, round_number)] for site in sites}
    try:
        return wait_for(run, round_number, chains)
    except BaseException:
        # The other sites' stages are short; what they write is erased once they are done.
        for (future,) in chains.values():
            future.wait()
        raise
