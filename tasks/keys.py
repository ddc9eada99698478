"""key: a site makes or finds the key of a run, and the coordinator keeps its public half.

forget-key: the run has ended, and no site needs the key any more.
"""

from concurrent.futures import Executor
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.files import write_json
from federated.protection.keys import PublicContext
from federated.run.folder import RunFolder
from federated.stages.keys import erase_key, prepare_key
from tasks.pool import finished


@task(name="key", task_run_name="key", cache_policy=NO_CACHE)
def key(pool: Executor, run: Path) -> PublicContext:
    """Write ``context.json`` of the run, from a key that stays at the sites."""
    public: PublicContext
    (public,) = finished([pool.submit(prepare_key, run)])
    write_json(RunFolder(run).context_path, public.to_json())
    return public


@task(name="forget-key", task_run_name="forget key", cache_policy=NO_CACHE)
def forget_key(pool: Executor, run: Path) -> None:
    """Erase the key of a run that has ended; its ``context.json`` stays."""
    finished([pool.submit(erase_key, run)])
