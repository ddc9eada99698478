"""A coordinator that chooses the model reads a site's labels from the mean loss of its training.

A model that gives all cases the same logits has a loss that is a sum over the labels alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.protection import PROTECTIONS
from federated.run.result import StageResult
from federated.run.update_files import read_state, write_state
from federated.stages.report import reports
from federated.stages.worker import site_cases
from tests.federated.staged_run import (
    Staged,
    agree_on_key,
    begin,
    small_experiment,
    small_images,
    train_round,
)
from tests.federated.stages.lies import PRIVATE, SITE, THREE

CLASS = 3
SITE_LEVEL = {"name": "site_level", "clip": 1.0, "noise_multiplier": 1.0}
SETTINGS = {
    **THREE,
    "compression": {"name": "none", "bits": 8},
    "model": {"name": "small_cnn"},
    "training": PRIVATE["training"] | {"lr": 1e-9, "batch_size": 64},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_images(tmp_path)


def told_losses(place: Path, data: Path, protection: str) -> tuple[Staged, list[float | None]]:
    """What sites tell of their training with a model of the coordinator's choice."""
    experiment = small_experiment(data, **SETTINGS, protection={"name": protection})
    run = begin(experiment, place / "runs")
    path = run.folder.state_path(0)
    state = read_state(path)
    weights = np.zeros_like(state.weights)
    (*_, bias) = (part for _, part in state.layout.split(weights).items())
    # One of the classes is less probable than the others, whatever the image.
    bias[CLASS] = -1
    write_state(path, replace(state, weights=weights))
    if experiment.protection.keyed:
        agree_on_key(run)
    train_round(run, 1)
    told = reports(run.coordinator, 1, "protect", run.sites)
    return run, [x.loss for x in told if isinstance(x, StageResult) and x.stage == "local_train"]


def test_in_the_clear_it_tells_how_many_cases_of_a_class_a_site_trains_on(
    tmp_path: Path, data: Path
) -> None:
    run, losses = told_losses(tmp_path, data, "plain")
    labels = np.asarray(site_cases(run.site(SITE), "train").labels).ravel()
    loss = losses[0]
    assert loss is not None
    base = np.log(7 + np.exp(-1))
    assert len(labels) * (loss - base) == pytest.approx((labels == CLASS).sum(), abs=1e-4)


@pytest.mark.parametrize("protection", [p.model_fields["name"].default for p in PROTECTIONS[1:]])
def test_where_updates_are_hidden_no_loss_is_told(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run, losses = told_losses(tmp_path, data, protection)
    assert losses == [None] * len(run.sites)


@pytest.mark.parametrize("privacy", [PRIVATE["privacy"], SITE_LEVEL], ids=["dp_sgd", "site_level"])
def test_of_a_private_run_no_loss_is_told(
    tmp_path: Path, data: Path, privacy: dict[str, Any]
) -> None:
    run = begin(small_experiment(data, **PRIVATE | {"privacy": privacy}), tmp_path / "runs")
    train_round(run, 1)
    told = reports(run.coordinator, 1, "protect", run.sites)
    assert len(told) == 3 * len(run.sites)
    assert [x.loss for x in told if isinstance(x, StageResult)] == [None] * len(told)
    # Nor is there anything else that follows the batches; what is refused were no result.
    assert {(x.started, x.ended, x.peak_rss_mb) for x in told if isinstance(x, StageResult)} == {
        (None, None, None)
    }
