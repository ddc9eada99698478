"""Approvals: what a person at a site has decided of a run that was proposed to it.

A decision is of the whole proposal (configuration, program, participants, numbers of cases), by its
SHA-256: another proposal under the same name has to be decided anew.
"""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, get_args

from federated.errors import ConsiliumError, RefusalError
from federated.exchange.plan import RunPlan
from federated.files import PRIVATE, read_json, write_json
from federated.site.home import SiteHome, SiteRun

Decision = Literal["approved", "refused"]


def proposal_digest(plan: RunPlan) -> str:
    """The SHA-256 of what is proposed: the plan, but for what sites have answered to it."""
    value = json.loads(plan.to_bytes()) | {"releases": {}}
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def refuse_unapproved(home: SiteHome, store: SiteRun, plan: RunPlan, by: str) -> None:
    """Refuse a run that nobody has approved; what is proposed is kept for a person to read.

    Args:
        home: the site's home.
        store: what it keeps of the run.
        plan: what is proposed.
        by: which line of the policy asks for it.

    Raises:
        RefusalError: a person has refused it, or has not decided yet.
    """
    digest = proposal_digest(plan)
    found = read_json(store.decision_path) if store.decision_path.is_file() else {}
    if found.get("proposal") == digest and found.get("decision") == "approved":
        return
    write_json(
        store.proposal_path, {"proposal": digest, "plan": json.loads(plan.to_bytes())}, PRIVATE
    )
    if found.get("proposal") == digest and found.get("decision") == "refused":
        raise RefusalError(f"{home.name} does not take part in run {store.run_id}: it was refused.")
    raise RefusalError(
        f"{home.name} does not take part in run {store.run_id} until a person approves it, by "
        f"{by}. Read {store.proposal_path}, and then: consilium site approve {store.run_id} "
        f"--home {home.root}"
    )


def is_undecided(store: SiteRun) -> bool:
    """Whether what was proposed to a site of a run waits for a person's decision."""
    if not store.proposal_path.is_file():
        return False
    found = read_json(store.decision_path) if store.decision_path.is_file() else {}
    return bool(found.get("proposal") != read_json(store.proposal_path)["proposal"])


def refuse_refused(home: SiteHome, store: SiteRun, plan: RunPlan) -> None:
    """Refuse to go on with a run that a person has refused after it was accepted.

    Raises:
        RefusalError: a person has.
    """
    found = read_json(store.decision_path) if store.decision_path.is_file() else {}
    if found.get("decision") == "refused" and found.get("proposal") == proposal_digest(plan):
        raise RefusalError(f"{home.name} does nothing more in run {store.run_id}: it was refused.")


def proposals(home: SiteHome) -> dict[str, dict[str, Any]]:
    """What was proposed to a site and kept for a person, by run; with the decision, if any.

    It is written down that these were shown: what a person decides is of them.
    """
    found = {}
    for path in sorted((home.root / "runs").glob("*/proposal.json")):
        store = home.run(path.parent.name)
        told = read_json(path)
        decided = read_json(store.decision_path) if store.decision_path.is_file() else {}
        same = decided.get("proposal") == told["proposal"]
        write_json(store.shown_path, told["proposal"], PRIVATE)
        found[store.run_id] = told | {"decision": decided.get("decision") if same else None}
    return found


def decide(home: SiteHome, run_id: str, decision: Decision) -> dict[str, Any]:
    """Write down what a person has decided of the present proposal of a run; return the proposal.

    Raises:
        ConsiliumError: nothing of that run waits for a decision, or it is another proposal than the
            one that was last shown.
    """
    assert decision in get_args(Decision)
    store = home.run(run_id)
    if not store.proposal_path.is_file():
        paths = sorted((home.root / "runs").glob("*/proposal.json"))
        waiting = ", ".join(path.parent.name for path in paths) or "none"
        raise ConsiliumError(
            f"Nothing of run {run_id} waits for a decision at {home.name}. Waiting: {waiting}."
        )
    told: dict[str, Any] = read_json(store.proposal_path)
    shown = read_json(store.shown_path) if store.shown_path.is_file() else told["proposal"]
    if shown != told["proposal"]:
        raise ConsiliumError(
            f"What is proposed to {home.name} of run {run_id} is another one than was shown: the "
            "coordinator has proposed it anew. Read it again: consilium site show"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    value = {"proposal": told["proposal"], "decision": decision, "time": now}
    write_json(store.decision_path, value, PRIVATE)
    home.audit.add(decision, run=run_id, proposal=told["proposal"])
    return told
