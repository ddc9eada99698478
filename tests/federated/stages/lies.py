"""What tests of lying parties share: runs to lie in, and looks at what was refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.message import open_message, sign
from federated.exchange.plan import RunPlan
from federated.stages.coordinator import (
    plan_run,
    propose,
)
from federated.stages.take_part import take_part
from tests.federated.staged_run import (
    Staged,
)

SITE, OTHER = "site-00", "site-01"
THREE = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}
QUANTISED = {"compression": {"name": "shared_mask", "density": 1.0, "bits": 8}}
BFV = {**THREE, **QUANTISED, "protection": {"name": "packed_bfv"}}
PRIVATE: dict[str, Any] = {
    **THREE,
    "privacy": {"name": "dp_sgd", "clip": 1.0, "noise_multiplier": 1.0},
    "training": {
        **{"lr": 0.1, "batch_size": 6, "device": "cpu", "optimizer": "sgd"},
        "augment": "none",
    },
    "model": {"name": "small_cnn"},
}


def refusals(run: Staged, who: str = COORDINATOR) -> list[str]:
    """Why a party has refused something, by its audit log."""
    audit = run.coordinator.mailbox.audit if who == COORDINATOR else run.home(who).audit
    return [line["reason"] for line in audit.lines() if line["event"] == "refused"]


def left_out(run: Staged) -> list[str]:
    """Which sites the coordinator has left out, by its audit log."""
    lines = run.coordinator.mailbox.audit.lines()
    return [line["sender"] for line in lines if line["event"] == "left out"]


def body_of(path: Path, signer: Identity) -> bytes:
    with open_message(path) as unread:
        return unread.read(signer.public, 10**9).body


def sign_plan(run: Staged, change: Callable[[RunPlan], RunPlan]) -> None:
    """Sign another plan of the run, in another attempt that sites have answered honestly."""
    members = run.coordinator.mailbox.members
    proposed = propose(run.folder, members, run.sites)
    run.coordinator = replace(run.coordinator, start=proposed.start, published={})
    for site in run.sites:
        take_part(run.call(site))
    coordinator, _ = plan_run(proposed)
    exchange, me = coordinator.mailbox.exchange, coordinator.mailbox.me
    before = replace(coordinator.start, plan="")
    place = Place(before.run, 0, before.attempt, "all", kinds.RUN_PLAN, COORDINATOR)
    (path,) = exchange.find(place)
    plan = change(RunPlan.from_bytes(body_of(path, me)))
    path.unlink()
    again = sign(me, before, kinds.RUN_PLAN, "all", plan.to_bytes())
    exchange.post(again)
    run.coordinator = replace(
        coordinator, start=replace(before, plan=again.signed.digest), published={}
    )
