"""A site takes no more memory for a state than the plan's model needs."""

from pathlib import Path
from typing import Any

import pytest

from federated.data.load import load, locate
from federated.errors import ConsiliumError
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.update import Layout
from federated.weights.build import new_model
from federated.weights.planned import MOST_HEADER, most_state, planned_layout
from tests.federated.staged_run import begin, play_round, small_experiment
from tests.federated.stages.lies import SITE, refusals

FULLEST: dict[str, Any] = {
    "strategy": {"name": "scaffold"},
    "compression": {"name": "shared_mask", "density": 0.5, "bits": 8},
}


@pytest.mark.parametrize("sections", [{}, {"strategy": {"name": "fedper"}}, FULLEST])
def test_a_state_is_as_large_as_its_plan_says(
    tmp_path: Path, data: Path, sections: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **sections), tmp_path / "runs")
    play_round(run, 1)
    most = most_state(run.experiment)
    for number in (0, 1):
        size = run.folder.state_path(number).stat().st_size
        assert size <= most < 2 * size + MOST_HEADER + 100_000


def test_the_layout_of_a_plan_is_that_of_its_network_and_takes_no_memory(data: Path) -> None:
    found = small_experiment(data, strategy={"name": "fedper"})
    info = load(locate(found.data), found.data).info
    model = new_model(found, info)
    assert planned_layout(found) == Layout.of(model, found.strategy.personal(model))


def test_a_state_beyond_what_the_model_needs_is_not_read(tmp_path: Path, data: Path) -> None:
    run = begin(small_experiment(data), tmp_path / "runs")
    path = run.folder.state_path(0)
    path.write_bytes(path.read_bytes() + bytes(most_state(run.experiment)))
    begin_round(run.coordinator, 1)
    with pytest.raises(ConsiliumError, match="and state has at most"):
        train_site(run.call(SITE), 1)
    assert refusals(run, SITE) == ["too large"]
