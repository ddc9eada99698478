"""What a worker process is handed by tests in which it is killed, in place of a worker's entries.

A worker imports what it is handed by name. Apart from this module stand the tests and their
fixtures, with Prefect and all flows, which each new worker would take two seconds to import.
"""

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

from federated.stages.worker import run_alone, run_and_report, run_in_order

# Which stage of which site is killed in round 2, before it begins or once it is done and nobody was
# told, as "stage site begun" or "stage site done".
DOOMED = "CONSILIUM_TEST_DOOMED"

# Where the worker of a site is killed in a private round 2.
BEFORE_IT_IS_MADE, ONCE_IT_IS_STORED = "train_round", "write_packed"
WHERE = {"site-01": BEFORE_IT_IS_MADE, "site-02": ONCE_IT_IS_STORED}


def _doomed(stage: Any) -> Callable[..., Any]:
    name, site, moment = os.environ[DOOMED].split() if DOOMED in os.environ else ("", "", "")

    @wraps(stage)
    def run(call: Any, *arguments: Any) -> Any:
        mark = call.home / "killed"
        hit = (stage.__name__, call.site) == (name, site) and arguments[:1] == (2,)
        if hit and not mark.exists():
            mark.touch()
            if moment == "done":
                stage(call, *arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return stage(call, *arguments)

    return run


def alone(stage: Any, call: Any, *arguments: Any) -> Any:
    """In place of ``run_alone``: killed where :data:`DOOMED` says."""
    return run_alone(_doomed(stage), call, *arguments)


def and_report(stage: Any, call: Any, *arguments: Any) -> Any:
    """In place of ``run_and_report``: killed where :data:`DOOMED` says."""
    return run_and_report(_doomed(stage), call, *arguments)


def in_order(stages: Any, call: Any, *arguments: Any) -> Any:
    """In place of ``run_in_order``: killed where :data:`DOOMED` says."""
    return run_in_order(tuple(_doomed(stage) for stage in stages), call, *arguments)


def site_02_in_round_2(stage: Any, call: Any, *arguments: Any) -> Any:
    """In place of ``run_and_report``: the worker of one site is killed as it begins to train."""
    if (call.site, stage.__name__, arguments) == ("site-02", "train_site", (2,)):
        os.kill(os.getpid(), signal.SIGKILL)
    return run_and_report(stage, call, *arguments)


def within_a_private_round_2(stage: Any, call: Any, *arguments: Any) -> Any:
    """In place of ``run_and_report``: the workers of two sites are killed, each once.

    The release of the one has been entered in the ledger then, and not been made; that of the other
    one is stored at the site, and nobody was told of it.
    """
    from federated.stages import local_train

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    mark = call.home / "killed"
    where = WHERE.get(call.site)
    if where and (stage.__name__, arguments) == ("train_site", (2,)) and not mark.exists():
        mark.touch()
        setattr(local_train, where, die)
    return run_and_report(stage, call, *arguments)
