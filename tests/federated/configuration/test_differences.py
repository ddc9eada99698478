"""The items of --set that make one experiment of another."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from federated.configuration.differences import overrides_between
from federated.configuration.load import load_experiment
from tests.conftest import TINY_PARAMS


@pytest.mark.parametrize(
    "items",
    [
        [],
        ["seed=3", "rounds=7", "training.lr=0.5"],
        ["strategy.name=fedadam", "strategy.server_lr=0.02"],
        ["privacy.name=dp_sgd", "privacy.epsilon=8", "privacy.delta=1e-3"],
        ["training.trainable=[norm,head]", "selection.patience=3", "sites.partition=iid"],
        ["compression.name=shared_mask", "compression.density=0.1", "compression.bits=8"],
        ["data.root=a folder", "training.local_steps=4"],
        ["evaluation.conformal.alpha=0.1", "evaluation.calibration=temperature"],
    ],
    ids=lambda items: items[0] if items else "nothing",
)
def test_what_was_set_is_found_again(tmp_path: Path, items: list[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(TINY_PARAMS))
    base, wanted = (load_experiment("tiny", own, params) for own in ([], items))
    found = overrides_between(base.to_json(), wanted.to_json())
    assert load_experiment("tiny", found, params) == wanted
    assert bool(found) == bool(items)
    # As a person writes it, and no value with braces in it.
    assert not [item for item in found if "{" in item]


def test_another_implementation_is_named_without_its_defaults(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(TINY_PARAMS))
    items = ["privacy.name=dp_sgd", "privacy.epsilon=8.0", "privacy.delta=0.001"]
    base, wanted = (load_experiment("tiny", own, params) for own in ([], items))
    stated = wanted.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    found = overrides_between(base.to_json(), wanted.to_json(), stated)
    assert sorted(found) == sorted(items)
    assert load_experiment("tiny", found, params) == wanted


def test_what_an_entry_sets_and_a_run_does_not_is_taken_back() -> None:
    entry, run = {"data": {"patch": [8, 8], "size": 28}}, {"data": {"size": 28}}
    assert overrides_between(entry, run) == ["data.patch=null"]


def test_what_an_entry_sets_and_a_run_has_as_usual_is_taken_back(tmp_path: Path) -> None:
    params, own = tmp_path / "params.yaml", deepcopy(TINY_PARAMS)
    own["defaults"]["evaluation"] |= {
        "calibration": "temperature",
        "conformal": {"alpha": 0.1},
        "uncertainty": "none",
    }
    own["defaults"]["statistics"] = {"epsilon": 1.0, "delta": 0.001}
    params.write_text(yaml.safe_dump(own))
    items = ["evaluation.calibration=none", "evaluation.conformal=null"]
    items += ["statistics.epsilon=null", "statistics.delta=1e-5"]
    base, wanted = (load_experiment("tiny", own, params) for own in ([], items))
    found = overrides_between(base.to_json(), wanted.to_json())
    assert "evaluation.calibration=none" in found
    assert load_experiment("tiny", found, params) == wanted
    left = [item for item in found if not item.startswith("statistics.")]
    assert load_experiment("tiny", left, params).statistics == base.statistics


def test_the_runner_is_no_setting_that_matters(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(TINY_PARAMS))
    base, other = (load_experiment("tiny", own, params) for own in ([], ["runner.name=processes"]))
    assert overrides_between(base.to_json(), other.to_json()) == []
