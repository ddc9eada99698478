"""The benchmark of segmentation's rounds: what counts, and that other work is told."""

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import segmentation_rounds
from benchmarks.process_tree import FailedError
from tests.networks import build_model

GIVEN = argparse.Namespace(data=Path("data"), folder=Path("runs"), repetitions=3, sets=[])
INITIAL = torch.zeros(3)


@pytest.fixture
def ended(monkeypatch):
    """What the bare loop ends with; rounds take 2 s in it and 3 s here, but for first and last."""
    ours = torch.tensor([1.0, 2.0, 3.0])
    weights = ours.clone()

    class Begun:
        def __init__(self, *_):
            self.model = None

    monkeypatch.setattr(segmentation_rounds, "Bare", Begun)
    monkeypatch.setattr(segmentation_rounds, "flat", lambda _: INITIAL)
    monkeypatch.setattr(
        segmentation_rounds, "our_rounds", lambda *_: ([50.0, 3.0, 3.0, 90.0], ours)
    )
    monkeypatch.setattr(
        segmentation_rounds, "bare_rounds", lambda *_: ([50.0, 2.0, 2.0, 70.0], weights)
    )
    return weights


def test_rounds_that_prepare_or_evaluate_do_not_count(ended):
    found = segmentation_rounds.measure(GIVEN, "retina")
    assert (found["ours"], found["bare"], found["ratio"]) == (3.0, 2.0, 1.5)
    assert found["cosine"] == pytest.approx(1)


def test_other_work_is_told(ended):
    ended[:] = torch.tensor([3.0, -2.0, 1.0])
    with pytest.raises(FailedError, match="it is other work"):
        segmentation_rounds.measure(GIVEN, "retina")


def test_a_model_is_one_vector_in_the_order_of_its_tensors():
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    vector = segmentation_rounds.flat(model)
    first = next(iter(model.state_dict().values()))
    assert vector.numel() == sum(t.numel() for t in model.state_dict().values())
    assert torch.equal(vector[: first.numel()], first.reshape(-1))
