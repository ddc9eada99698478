"""A round that broke off is begun again with what it began with, whatever a site had done of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.run.update_files import read_payload
from federated.stages.aggregate import add_payloads, apply_sum, received_sum
from federated.stages.coordinator import ask_evaluation
from federated.stages.evaluate import evaluate_site
from federated.weights.bounded_file import Content
from tests.federated.staged_run import Staged, begin, play_round, small_experiment, train_round


def sent(run: Staged, topic: Topic) -> list[np.ndarray]:
    """What each site has sent for the sum of a round."""
    mailbox = run.coordinator.mailbox
    messages = [mailbox.receive(topic, kinds.PAYLOAD, site, 10**9) for site in run.sites]
    return [read_payload(Content(message.body, "x")).body.copy() for message in messages]


@pytest.mark.parametrize(
    "sections",
    [
        {"compression": {"name": "none", "bits": 8}},
        {"compression": {"name": "shared_mask", "density": 0.1}},
        {"compression": {"name": "top_k", "density": 0.1}},
        {"strategy": {"name": "scaffold"}},
        {"strategy": {"name": "fedper"}},
    ],
    ids=lambda sections: str(next(iter(sections.values()))),
)
def test_a_round_that_broke_off_in_its_evaluation_is_what_it_was(
    tmp_path: Path, data: Path, sections: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    play_round(run, 1)
    topic = train_round(run, 2)
    first = sent(run, topic)
    responded = add_payloads(run.coordinator, topic, run.sites).responded
    apply_sum(run.coordinator, topic, responded, received_sum(run.coordinator, topic, None))
    ask_evaluation(run.coordinator, 2, responded)
    for site in run.sites:
        evaluate_site(run.call(site), 2)
    # The coordinator ends before it writes the round's record.
    run.resume()
    again = sent(run, train_round(run, 2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
