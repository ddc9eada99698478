"""key: a site makes the key of a run and seals it to the others, and the coordinator passes on.

forget-key: the run has ended, and no site needs the key any more.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.errors import ConsiliumError
from federated.files import write_json
from federated.protection.keys import PublicContext
from federated.stages.coordinator import Coordinator, publish_state
from federated.stages.keys import erase_key, make_key, relay_held, take_key
from federated.stages.site import SiteCall
from tasks.pool import finished, submit_stage


@dataclass
class _Lacking:
    """Which sites have no key, and why; where the run does not go on without, one ends it."""

    goes_on: bool
    why: dict[str, str] = field(default_factory=dict)

    def add(self, site: str, error: ConsiliumError) -> None:
        if not self.goes_on:
            raise error
        self.why[site] = str(error)


@task(name="key", task_run_name="key", cache_policy=NO_CACHE)
def key(
    pool: Executor, coordinator: Coordinator, calls: Sequence[SiteCall]
) -> tuple[PublicContext, dict[str, str]]:
    """Have all sites come to one key, and write ``context.json`` of the run, which has no secret.

    The first site that can makes it; which one that is, makes no difference to what anybody learns.

    Returns:
        What everybody knows of the key; and the sites that have none, and so drop out of every
        round of this attempt, with the reasons.

    Raises:
        ConsiliumError: a site has none and ``sites.on_dropout`` is ``abort``, or too few have one.
    """
    done = coordinator.folder.done_rounds()
    publish_state(coordinator, done)
    experiment = coordinator.run.experiment
    lacking = _Lacking(experiment.sites.on_dropout == "continue")
    maker = _make(pool, calls, done, lacking)
    taking = [call for call in calls if call.site not in {maker, *lacking.why}]
    futures = [submit_stage(pool, take_key, call, maker, done) for call in taking]
    for call, future in zip(taking, futures, strict=True):
        try:
            finished([future])
        except ConsiliumError as error:
            lacking.add(call.site, error)
    asked = [call.site for call in calls if call.site not in lacking.why]
    held, others = relay_held(coordinator, maker, asked)
    for site, why in others.items():
        lacking.add(site, ConsiliumError(why))
    fewest = getattr(experiment.protection, "min_sites", 1)
    if len(held.sites) < fewest:
        raise ConsiliumError(
            f"Only {len(held.sites)} sites have the key of run {coordinator.run.run_id}, and "
            f"protection.min_sites={fewest} have to be in a sum. "
            f"{' '.join(lacking.why.values())} Resume the run when the sites are there."
        )
    write_json(coordinator.folder.context_path, held.public.to_json())
    return held.public, lacking.why


def _make(pool: Executor, calls: Sequence[SiteCall], done: int, lacking: _Lacking) -> str:
    """Have the first site make the key that can, and return which one it is."""
    for call in calls:
        try:
            finished([submit_stage(pool, make_key, call, done)])
        except ConsiliumError as error:
            lacking.add(call.site, error)
        else:
            return call.site
    raise ConsiliumError(
        f"No site can make the key of the run; the last said: {list(lacking.why.values())[-1]}"
    )


@task(name="forget-key", task_run_name="forget key", cache_policy=NO_CACHE)
def forget_key(pool: Executor, calls: Sequence[SiteCall]) -> None:
    """Erase the key of a run that has ended at all sites; its ``context.json`` stays."""
    finished([submit_stage(pool, erase_key, call) for call in calls])
