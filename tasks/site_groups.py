"""Stages of several sites in one task run: nobody reads a graph of thousands of task runs."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.errors import ConsiliumError
from tasks.pool import AnyCall, finished, gathered, submit_in_order, submit_together


@dataclass(frozen=True)
class Stacks:
    """How several sites of a group do a stage in one call.

    Args:
        sites: how many at most.
        stage: does it for a list of calls and the round, and returns the sites that fail.
    """

    sites: int
    stage: Callable[..., Mapping[str, ConsiliumError]]


class SiteGroup:
    """Sites that do the same in one task run.

    It is no dataclass, so that Prefect does not look through the calls of all sites for results of
    tasks.

    Args:
        what: they do, for the name of the task run.
        stages: the functions of it, in order.
        calls: what the pool is handed for each site.
        round_number: the round.
        arguments: of each stage, after its call and the round.
        stacks: takes the place of the first stage, if there are any.
    """

    def __init__(
        self,
        what: str,
        stages: tuple[Callable[..., None], ...],
        calls: Sequence[AnyCall],
        round_number: int,
        arguments: tuple[str, ...] = (),
        stacks: Stacks | None = None,
    ) -> None:
        self.what, self.stages, self.calls = what, stages, calls
        self.round_number, self.arguments, self.stacks = round_number, arguments, stacks

    @property
    def title(self) -> str:
        """The name of the task run."""
        first = self.calls[0].site
        return f"{self.what}[{len(self.calls)} sites: {first}, …] round {self.round_number}"


@task(name="site-group", task_run_name="{group.title}", cache_policy=NO_CACHE)
def at_sites(pool: Executor, group: SiteGroup) -> dict[str, str]:
    """Run the stages at each site of a group; return the sites at which one failed, and why."""
    given = (group.round_number, *group.arguments)
    failed: dict[str, str] = {}
    stages = group.stages
    if group.stacks is not None:
        many, together = group.stacks.sites, group.stacks.stage
        parts = [group.calls[start : start + many] for start in range(0, len(group.calls), many)]
        for told in finished([submit_together(pool, together, part, *given) for part in parts]):
            failed |= told
        stages = stages[1:]
    calls = [call for call in group.calls if call.site not in failed]
    begun = {call.site: submit_in_order(pool, stages, call, *given) for call in calls}
    return failed | gathered(begun, abort=False).failed
