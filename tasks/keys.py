"""key: a site makes the key of a run and seals it to the others, and the coordinator passes on.

forget-key: the run has ended, and no site needs the key any more.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.errors import ConsiliumError
from federated.files import write_json
from federated.protection.keys import PublicContext
from federated.stages.coordinator import Coordinator, publish_state
from federated.stages.key_verdict import Heard, KeySearch, hear, relay_held
from federated.stages.keys import NoKeyTakenError, erase_key, make_key, take_key
from tasks.pool import AnyCall, DeadWorkerError, finished, submit_stage


@task(name="key", task_run_name="key", cache_policy=NO_CACHE)
def key(
    pool: Executor, coordinator: Coordinator, calls: Sequence[AnyCall]
) -> tuple[PublicContext, dict[str, str]]:
    """Have all sites come to one key, and write ``context.json`` of the run, which has no secret.

    The first site makes it whose key counts, by what the others have signed of it; which one that
    is, makes no difference to what anybody learns.

    Returns:
        What everybody knows of the key; and the sites that have none, and so drop out of every
        round of this attempt, with the reasons.

    Raises:
        ConsiliumError: a stage has failed at a site and ``sites.on_dropout`` is ``abort``, or too
            few sites have a key.
    """
    done = coordinator.folder.done_rounds()
    publish_state(coordinator, done)
    search = KeySearch(len(calls))
    heard = _settled(pool, coordinator, calls, done, search)
    audit, run = coordinator.mailbox.audit, coordinator.run
    for site, why in search.lacking.items():
        audit.add("without the key", run=run.run_id, sender=site, said=why)
    said = "; ".join(f"{site}: {why}" for site, why in search.lacking.items())
    if heard is None:
        raise ConsiliumError(f"No site has made a key that the others of the run can take. {said}")
    fewest = getattr(run.experiment.protection, "min_sites", 1)
    # One that has been found to lie of other makers may hold this key too.
    there = heard.holding.keys() - search.lacking.keys()
    if len(there) < fewest:
        raise ConsiliumError(
            f"Only {len(there)} sites have the key of run {run.run_id}, and "
            f"protection.min_sites={fewest} have to be in a sum. {said} Resume the run when the "
            "sites are there."
        )
    held = relay_held(coordinator, heard)
    write_json(coordinator.folder.context_path, held.public.to_json())
    return held.public, search.lacking


def _settled(
    pool: Executor,
    coordinator: Coordinator,
    calls: Sequence[AnyCall],
    done: int,
    search: KeySearch,
) -> Heard | None:
    """What sites have signed of the key that they go on with; ``None`` if no site has made one.

    Args:
        pool: what runs the sites' stages.
        coordinator: the coordinator.
        calls: the sites, in the order in which they are to make the key.
        done: the last round that is done.
        search: which sites have no key, and why.

    Raises:
        ConsiliumError: a stage has failed at a site and ``sites.on_dropout`` is ``abort``.
    """
    for number, call in enumerate(calls):
        maker = call.site
        if maker in search.lacking:
            continue
        left = [each for each in calls if each.site not in search.lacking]
        takers = [each for each in left if each.site != maker]
        made = {maker: submit_stage(pool, make_key, call, done)}
        if not _goes_well(coordinator, made, search):
            continue
        _goes_well(
            coordinator,
            {each.site: submit_stage(pool, take_key, each, maker, done) for each in takers},
            search,
        )
        asked = [each.site for each in left if each.site not in search.lacking]
        try:
            heard = hear(coordinator, maker, asked, done)
        except ConsiliumError as error:
            search.lacking[maker] = str(error)
            continue
        last = all(later.site in search.lacking for later in calls[number + 1 :])
        if settled := search.settles(heard, last):
            return settled
    return search.best()


def _goes_well(
    coordinator: Coordinator, futures: Mapping[str, "Future[None]"], search: KeySearch
) -> bool:
    """Wait for a stage at several sites; return whether it has failed at none of them.

    What a site has signed instead of taking a key is judged later, with what the others have.

    Raises:
        ConsiliumError: it has, and ``sites.on_dropout`` is ``abort``; or a worker process died.
    """
    well = True
    for site, future in futures.items():
        try:
            finished([future])
        except DeadWorkerError:
            raise
        except NoKeyTakenError:
            continue
        except ConsiliumError as error:
            if coordinator.run.experiment.sites.on_dropout == "abort":
                raise
            search.lacking[site] = str(error)
            well = False
    return well


@task(name="forget-key", task_run_name="forget key", cache_policy=NO_CACHE)
def forget_key(pool: Executor, calls: Sequence[AnyCall]) -> None:
    """Erase the key of a run that has ended at all sites; its ``context.json`` stays."""
    finished([submit_stage(pool, erase_key, call) for call in calls])
