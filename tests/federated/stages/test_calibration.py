"""A model's calibration through the stages: what leaves a site, and under which protection.

Each attack is made by whoever has a site's own key and can write to the exchange.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.calibration.of_model import ModelCalibration
from federated.calibration.temperature import MOST_LOSS, UNCHANGED
from federated.learning.evaluation import Evaluation
from federated.privacy.spending import EVALUATIONS
from federated.site.holder import holder_ledger
from federated.stages import evaluate as evaluate_stage
from federated.stages.coordinator import ask_evaluation
from federated.stages.evaluate import evaluate, evaluate_site
from federated.stages.worker import site_cases, worker_context
from federated.update import Arrays
from tests.federated.staged_run import Staged, begin, leave_model, small_experiment
from tests.federated.stages.summing import HIDING, PROTECTIONS, begin_sums, summed
from tests.federated.stages.test_evaluate import evaluated, message_of, sent_by

ASKED: dict[str, Any] = {"calibration": "temperature", "conformal": {"alpha": 0.3}}
ADDED = {
    *("tempered_loss", "tempered_reliability", "tempered_confidence"),
    *("true_steps", "every_step"),
}
SECTIONS = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}


def begun(tmp_path: Path, data: Path, **evaluation: Any) -> Staged:
    """A run of three sites whose first model is left as it was."""
    run = begin(small_experiment(data, **SECTIONS, evaluation=ASKED | evaluation), tmp_path / "r")
    leave_model(run, 1)
    return run


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_protected_sum_gives_the_calibration_of_statistics_and_that_of_no_site(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_sums(tmp_path / "sums", data, protection, evaluation=ASKED | {"share": "sums"})
    found = summed(run).calibration
    clear = evaluated(begun(tmp_path, data)).calibration
    assert found is not None
    assert clear is not None
    assert found.pooled == clear.pooled
    assert found.tempered is not None
    assert clear.tempered is not None
    assert found.tempered.temperature == clear.tempered.temperature
    assert found.tempered.losses == pytest.approx(clear.tempered.losses, abs=1e-5)
    assert found.tempered.ece == pytest.approx(clear.tempered.ece, abs=1e-5)
    assert found.sites == {}
    assert set(clear.sites) == set(run.sites)


@pytest.mark.parametrize("protection", HIDING)
def test_of_what_is_summed_nothing_of_a_site_is_sent_in_the_clear(
    tmp_path: Path, data: Path, protection: str
) -> None:
    run = begin_sums(tmp_path / "sums", data, protection, evaluation=ASKED | {"share": "sums"})
    summed(run)
    assert not names_in(run)


def names_in(run: Staged) -> set[str]:
    """Which of the arrays can be read in what has passed between the parties of a run."""
    passed = [path.read_bytes() for path in run.folder.exchange_path.rglob("*") if path.is_file()]
    return {name for name in ADDED if any(name.encode() in content for content in passed)}


def test_in_the_clear_the_coordinator_reads_those_of_each_site(tmp_path: Path, data: Path) -> None:
    run = begun(tmp_path, data)
    message_of(run, "site-00")
    assert names_in(run) == ADDED


def test_statistics_leave_a_site_and_no_case(tmp_path: Path, data: Path) -> None:
    """Of a fixed size at every site, and nothing of them has as many rows as there are cases."""
    run = begun(tmp_path, data)
    sent = sent_by(run, "site-00")
    assert {name.partition(".")[2] for name in sent} >= ADDED
    assert not {"test.probabilities", "test.labels"} & sent.keys()
    count = len(site_cases(run.site("site-00"), "test"))
    assert not any(count in array.shape for array in sent.values())
    assert len({message_of(run, site).size for site in run.sites[1:]}) == 1


def test_the_ledger_says_what_it_says_of_any_evaluation(tmp_path: Path, data: Path) -> None:
    run = begun(tmp_path, data)
    sent_by(run, "site-00")
    (entry,) = holder_ledger(run.experiment).spendings()
    assert entry.mechanism == EVALUATIONS["statistics"]
    assert entry.noise_multiplier == 0
    site = run.site("site-00")
    told = {r for split in ("val", "test") for r in site_cases(site, split).records}
    assert holder_ledger(run.experiment).evaluated_only() == told


def lying(run: Staged, monkeypatch: pytest.MonkeyPatch, change: Any) -> Evaluation:
    """The evaluation after one site has sent something else than what it has."""
    topic = ask_evaluation(run.coordinator, 1, [])
    honest = evaluate_stage.shared_arrays

    def dishonest(*given: Any) -> Arrays:
        return change(dict(honest(*given)))

    for site in run.sites:
        with monkeypatch.context() as patch:
            if site == "site-01":
                patch.setattr(evaluate_stage, "shared_arrays", dishonest)
            evaluate_site(run.call(site), 1)
    info = worker_context(run.site(run.sites[0])).info
    return evaluate(run.coordinator, topic, run.sites, info)


def chosen(arrays: Arrays, place: int) -> Arrays:
    """Losses as large as any may be but at a temperature, and at 1, where they are told twice."""
    losses = np.full(49, MOST_LOSS * arrays["cases"][0])
    losses[place], losses[UNCHANGED] = 0.0, arrays["tempered_loss"][UNCHANGED]
    return {**arrays, "tempered_loss": losses}


LIES = {
    "the temperature that it wants": lambda a: chosen(a, 40),
    "a temperature that all cases ask for": lambda a: {
        **a,
        "tempered_loss": np.where(np.arange(49) == 48, 0.0, a["tempered_loss"] + 1e4),
    },
    "losses that are no numbers": lambda a: {**a, "tempered_loss": a["tempered_loss"] * np.nan},
    "a threshold of 1": lambda a: {**a, "true_steps": np.roll(a["true_steps"], 3000)},
    "more cases than it has": lambda a: {**a, "true_steps": a["true_steps"] * 1000},
    "nothing of what was asked for": lambda a: {n: x for n, x in a.items() if n not in ADDED},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_tells_what_no_cases_have_moves_no_temperature_and_no_threshold(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    run = begun(tmp_path, data)
    found = lying(run, monkeypatch, LIES[lie])
    assert set(found.missing) == {"site-01"}
    assert found.calibration is not None
    assert set(found.calibration.sites) == {"site-00", "site-02"}


def test_a_record_gives_the_model_what_it_predicts_with(tmp_path: Path, data: Path) -> None:
    found = evaluated(begun(tmp_path, data)).calibration
    assert found is not None
    of_model = ModelCalibration.of_record(found.to_json())
    assert of_model is not None
    assert found.tempered is not None
    assert of_model.temperature == found.tempered.temperature
    assert set(of_model.sites) == {"site-00", "site-01", "site-02"}
