"""Sites that have no cases of a split."""

from pathlib import Path
from typing import Any

import pytest

from federated.data.load import load, locate
from federated.data.partition import Partition
from federated.data.partitioning import partition_dataset
from federated.errors import ConsiliumError
from federated.run.runs import new_run
from federated.stages.aggregate import add_payloads, apply_sum, received_sum
from federated.stages.compress import compress_site
from federated.stages.coordinator import ask_evaluation, begin_round
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.worker import worker_context
from tests.federated.staged_run import Staged, begin_with, leave_model, small_experiment
from tests.federated.stages.lies import OTHER, PRIVATE, SITE, THREE

EPSILON = {"name": "dp_sgd", "clip": 1.0, "epsilon": 8.0}


def begin_without(
    place: Path, data: Path, *missing: str, private: dict[str, Any] | None = None
) -> Staged:
    """A run of three sites, of which the first has no cases of some splits."""
    experiment = small_experiment(data, **(private or THREE))
    folder, located = new_run(place / "runs", experiment), locate(experiment.data)
    dataset = load(located, experiment.data)
    drawn = partition_dataset(dataset, experiment.sites, experiment.seed)
    own = {split: () if split in missing else found for split, found in drawn.sites[SITE].items()}
    partition = Partition({**drawn.sites, SITE: own}, drawn.draws, drawn.moved)
    return begin_with(folder, experiment, located, dataset, partition)


def test_a_site_without_training_cases_says_so_and_the_others_make_the_next_model(
    tmp_path: Path, data: Path
) -> None:
    run = begin_without(tmp_path, data, "train")
    topic = begin_round(run.coordinator, 1)
    with pytest.raises(ConsiliumError, match="site-00 has no training cases"):
        train_site(run.call(SITE), 1)
    for site in run.sites[1:]:
        train_site(run.call(site), 1)
        compress_site(run.call(site), 1)
        protect_site(run.call(site), 1)
    added = add_payloads(run.coordinator, topic, run.sites)
    assert (added.responded, list(added.refused)) == (run.sites[1:], [SITE])
    apply_sum(
        run.coordinator,
        topic,
        added.responded,
        received_sum(run.coordinator, topic, None),
    )


@pytest.mark.parametrize("private", [PRIVATE, {**PRIVATE, "privacy": EPSILON}])
def test_a_site_without_training_cases_takes_part_in_no_private_run(
    tmp_path: Path, data: Path, private: dict[str, Any]
) -> None:
    with pytest.raises(ConsiliumError, match="without training cases has nothing to release"):
        begin_without(tmp_path, data, "train", private=private)


def test_a_site_without_cases_to_evaluate_is_in_the_evaluation_all_the_same(
    tmp_path: Path, data: Path
) -> None:
    run = begin_without(tmp_path, data, "val", "test")
    leave_model(run, 1)
    topic = ask_evaluation(run.coordinator, 1, [])
    for site in run.sites:
        evaluate_site(run.call(site), 1)
    found = evaluate(run.coordinator, topic, run.sites, worker_context(run.site(OTHER)).info)
    assert found.missing == {}
    assert found.per_site[SITE]["test"]["accuracy"] is None
    assert found.overall["test"]["accuracy"] is not None
