"""Stages of several sites in one task run: nobody reads a graph of thousands of task runs."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.pool import AnyCall, gathered, submit_in_order


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
    """

    def __init__(
        self,
        what: str,
        stages: tuple[Callable[..., None], ...],
        calls: Sequence[AnyCall],
        round_number: int,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.what, self.stages, self.calls = what, stages, calls
        self.round_number, self.arguments = round_number, arguments

    @property
    def title(self) -> str:
        """The name of the task run."""
        first = self.calls[0].site
        return f"{self.what}[{len(self.calls)} sites: {first}, …] round {self.round_number}"


@task(name="site-group", task_run_name="{group.title}", cache_policy=NO_CACHE)
def at_sites(pool: Executor, group: SiteGroup) -> dict[str, str]:
    """Run the stages at each site of a group; return the sites at which one failed, and why."""
    given = (group.round_number, *group.arguments)
    begun = {call.site: submit_in_order(pool, group.stages, call, *given) for call in group.calls}
    return gathered(begun, abort=False).failed
