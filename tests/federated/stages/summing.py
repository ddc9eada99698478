"""A secure sum of the evaluation of three sites, stage by stage as a coordinator calls them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from federated.exchange.message import Topic
from federated.learning.evaluation import Evaluation
from federated.protection.digits import WholeNumbers
from federated.stages.aggregate import add_payloads, decrypt_site, hand_sum, vouch_site
from federated.stages.coordinator import ask_evaluation
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.named_sums import EVALUATION
from federated.stages.secagg import advertise_site, agree_site, answer_site, share_site
from federated.stages.secagg_messages import Roster, masked_round
from federated.stages.secagg_relay import (
    relay_keys,
    relay_responded,
    relay_shares,
    relay_views,
    unmask_sum,
)
from federated.stages.secure_sum import digits_in
from federated.stages.worker import worker_context
from tests.federated.staged_run import Staged, agree_on_key, begin, leave_model, small_experiment
from tests.federated.stages.lies import SITE

NAME = EVALUATION.name
PROTECTIONS = ("plain", "packed_bfv", "secagg_plus", "rlwe_secagg")
# What opens a sum to nobody but those who are to know it.
HIDING = PROTECTIONS[1:]


def begin_sums(place: Path, data: Path, name: str, /, **sections: Any) -> Staged:
    """A run of three sites that tell sums of their evaluation, with its key where it has one.

    ``min_sites`` and other values of the protection are in ``sections["protection"]``.
    """
    own = {"name": name} | sections.pop("protection", {})
    value = {
        "sites": {"count": 3, "partition": "iid", "min_cases": 2},
        "compression": {"name": "none", "bits": 8},
        "evaluation": {"share": "sums"},
    }
    run = begin(small_experiment(data, **value | sections, protection=own), place)
    # What is summed is how good the first model is, as if a round had left it as it was.
    leave_model(run, 1)
    tell_key(run)
    return run


def tell_key(run: Staged) -> None:
    """Have the sites' key made, or told in another attempt, where they have one."""
    if run.experiment.protection.keyed:
        agree_on_key(run)


def resume(run: Staged) -> None:
    """Begin another attempt at a run."""
    run.resume()
    tell_key(run)


def ask(run: Staged, round_number: int = 1) -> Topic:
    """Ask all sites to evaluate the state after a round, in a sum."""
    return replace(ask_evaluation(run.coordinator, round_number, []), sum=NAME)


def exchange(run: Staged, topic: Topic) -> Roster | None:
    """The exchange of keys before a sum, where sites mask."""
    if not run.experiment.protection.masked:
        return None
    for site in run.sites:
        advertise_site(run.call(site), topic.round, topic.sum)
    roster = relay_keys(run.coordinator, topic, run.sites)
    for site in run.sites:
        share_site(run.call(site), topic.round, topic.sum)
    return relay_shares(run.coordinator, topic, roster, run.sites)


def add(run: Staged, topic: Topic, roster: Roster | None, sites: list[str]) -> list[str]:
    """Add the parts of some sites; those that count."""
    masks = masked_round(run.coordinator.run, list(roster.advertised), topic) if roster else None
    length = digits_in(run.coordinator, topic, worker_context(run.site(SITE)).info)
    return add_payloads(run.coordinator, topic, sites, masks, length).responded


def open_up(run: Staged, topic: Topic, roster: Roster | None, responded: list[str]) -> None:
    """Have the sum of those who responded opened, where it is not in the clear."""
    number = topic.round
    if roster is not None:
        relay_responded(run.coordinator, topic, roster, responded)
        for site in responded:
            agree_site(run.call(site), number, topic.sum)
        relay_views(run.coordinator, topic, responded)
        for site in responded:
            answer_site(run.call(site), number, topic.sum)
        unmask_sum(run.coordinator, topic, roster, responded, responded)
    elif run.experiment.protection.keyed:
        hand_sum(run.coordinator, topic, responded[0])
        for site in responded:
            vouch_site(run.call(site), number, responded, topic.sum)
        decrypt_site(run.call(responded[0]), number, responded, topic.sum)


def whether_told(run: Staged, vector: WholeNumbers) -> bool:
    """Whether some of a site's numbers can be read in anything that sites have sent.

    ``vector`` has small counts; looked for are some of them in a row, in whatever form.
    """
    start = int(np.flatnonzero(vector)[0])
    some = vector[start : start + 60]
    assert np.count_nonzero(some) > 3
    forms = [some.astype(form).tobytes() for form in ("i1", "<i4", "<i8", "<f4", "<f8")]
    forms.append(json.dumps(some.tolist())[1:-1].encode())
    sent = (p for p in run.folder.exchange_path.rglob("*.message") if p.parent.name in run.sites)
    return any(form in content for content in map(Path.read_bytes, sent) for form in forms)


def measured(run: Staged, topic: Topic, responded: list[str]) -> Evaluation:
    """What the coordinator makes of the opened sum."""
    info = worker_context(run.site(SITE)).info
    return evaluate(run.coordinator, topic, responded, info, responded[0])


def summed(run: Staged, sites: list[str] | None = None, round_number: int = 1) -> Evaluation:
    """The whole of it; of the parts of some sites alone, as if the others had dropped out."""
    topic = ask(run, round_number)
    roster = exchange(run, topic)
    for site in run.sites:
        evaluate_site(run.call(site), round_number)
    responded = add(run, topic, roster, sites or run.sites)
    open_up(run, topic, roster, responded)
    return measured(run, topic, responded)
