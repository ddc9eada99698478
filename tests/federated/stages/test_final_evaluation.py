"""What sites tell once, at the end of a run: by subgroups, and only as they allow it.

Each attack is made by whoever has a site's own key and can write to the exchange, or by a
coordinator that asks for what it may not have.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from federated.configuration.description_file import find_description
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.learning import CLASSIFICATION
from federated.privacy.spending import FINAL
from federated.run.update_files import read_state, write_state
from federated.site.holder import holder_ledger
from federated.site.told_subgroups import refuse_other_subgroups
from federated.stages import final_evaluation as stage
from federated.stages.coordinator import end_run
from federated.stages.final_evaluation import FinalOutcome, evaluate_at_end, receive_final
from federated.stages.site_model import own_weights
from federated.stages.take_part import take_part
from federated.stages.worker import held_cases, site_cases, worker_context
from tests.described_sets import CLASSES, describe, picture_set, write_table
from tests.federated.staged_run import Staged, begin, leave_model, record, small_experiment

GROUPS = {"sex": ["F", "M"], "age": [50]}
SITES = ("site-north", "site-south")


def own_pictures(root: Path, cases: int = 64) -> Path:
    """A described set of pictures whose table says sex and age, and of some cases neither."""
    folder = root / "data" / "mine"
    rows = picture_set(folder, cases)
    for number, row in enumerate(rows):
        row["sex"] = ("F", "female", "M", "M", "f", "male", "", "F")[(number // 2) % 8]
        row["age"] = ("31", "072Y", "50", "n/a")[(number // 4) % 4]
        row["split"] = ("train", "train", "val", "test", "test", "test", "test", "test")[
            (number // 8) % 8
        ]
    write_table(folder, rows)
    describe(folder, CLASSES)
    return root / "data"


def begun(tmp_path: Path, policy: str = "", **evaluation: Any) -> Staged:
    """A run of two sites after a round, whose model is that before it."""
    data = tmp_path / "data"
    if not data.is_dir():
        own_pictures(tmp_path)
    described = find_description("mine", data)
    experiment = small_experiment(
        data,
        data={"dataset": "mine", "source": "files", "root": str(data), "described": described},
        sites={"count": 2, "partition": "natural", "min_cases": 2},
        evaluation={"subgroups": GROUPS} | evaluation,
        rounds=1,
    )
    run = begin(experiment, tmp_path / f"runs{len(list(tmp_path.iterdir()))}")
    leave_model(run, 1)
    record(run, 1, list(SITES))
    for site in SITES if policy else ():
        home = run.home(site)
        text = home.policy_path.read_text()
        key = policy.split(":")[0]
        kept = [line for line in text.splitlines() if not line.startswith(f"{key}:")]
        home.write_policy("\n".join([*kept, policy, ""]))
    return run


def ended(run: Staged, sites: tuple[str, ...] = SITES) -> FinalOutcome:
    topic = end_run(run.coordinator)
    for site in sites:
        evaluate_at_end(run.call(site), 1)
    return receive_final(run.coordinator, topic, SITES, info_of(run))


def info_of(run: Staged) -> Any:
    return worker_context(run.site(SITES[0])).info


def predicted(run: Staged, site: str) -> tuple[np.ndarray, np.ndarray, list[dict[str, str]]]:
    """What the model says of a site's test cases, worked out without any of the code of groups."""
    own = run.site(site)
    context, cases = worker_context(own), site_cases(own, "test")
    state = stage.open_end(own, 1)[0]
    state.layout.load(context.model, own_weights(own, state))
    found = CLASSIFICATION.predict(context.model, cases, "cpu", context.info)
    table = [dict(each) for each in held_cases(own).attributes([site], "test")]
    return found["labels"], found["probabilities"], table


def test_numbers_of_groups_are_those_of_the_predictions_themselves(tmp_path: Path) -> None:
    run = begun(tmp_path)
    found = ended(run)
    assert not found.missing
    labels, probabilities, table = [], [], []
    for site in SITES:
        own = predicted(run, site)
        labels.append(own[0])
        probabilities.append(own[1])
        table += own[2]
    right = np.concatenate(probabilities).argmax(axis=1) == np.concatenate(labels)
    women = np.array([row["sex"] in ("F", "f", "female") for row in table])
    men = np.array([row["sex"] in ("M", "male") for row in table])
    old = np.array([row["age"] in ("072Y", "50") for row in table])
    unknown = np.array([row["age"] == "" for row in table])
    assert len(table) == 40
    for attribute, name, chosen in (
        ("sex", "F", women),
        ("sex", "M", men),
        ("sex", "other or not stated", ~women & ~men),
        ("age", "50 and above", old),
        ("age", "below 50", ~old & ~unknown),
        ("age", "other or not stated", unknown),
    ):
        (group,) = [g for g in found.sums.groups[attribute] if g.name == name]
        assert group.statistics is not None
        assert group.measured is not None
        assert group.statistics.cases == chosen.sum() > 0
        assert group.measured.metrics["accuracy"] == pytest.approx(right[chosen].mean())
        assert group.told_by == SITES


def sent_by(run: Staged, site: str) -> dict[str, np.ndarray]:
    topic = end_run(run.coordinator)
    evaluate_at_end(run.call(site), 1)
    body = run.coordinator.mailbox.receive(
        topic, kinds.FINAL_EVALUATION, site, kinds.MOST_EVALUATION
    ).body
    return load(body)


def test_no_case_leaves_a_site_and_no_text_of_its_table(tmp_path: Path) -> None:
    run = begun(tmp_path)
    sent = {site: sent_by(run, site) for site in SITES}
    count = len(site_cases(run.site(SITES[0]), "test"))
    assert not any(count in array.shape for array in sent[SITES[0]].values())
    shapes = [{n: (a.shape, str(a.dtype)) for n, a in own.items()} for own in sent.values()]
    assert shapes[0] == shapes[1]
    passed = b"".join(p.read_bytes() for p in run.folder.exchange_path.rglob("*") if p.is_file())
    assert b"female" not in passed
    assert b"072Y" not in passed


def test_small_groups_and_those_they_follow_from_are_hidden(tmp_path: Path) -> None:
    run = begun(tmp_path, min_count=3, share="statistics")
    found = ended(run)
    assert not found.missing
    for groups in found.sums.groups.values():
        for group in groups:
            for site in group.hidden_by:
                assert site not in group.told_by
    sent = {site: sent_by(begun(tmp_path, min_count=3), site) for site in SITES}
    for own in sent.values():
        for attribute in GROUPS:
            cases, told = own[f"{attribute}.cases"], own[f"{attribute}.told"]
            left = int(own["cases"][0]) - int(cases.sum())
            assert not ((cases > 0) & (cases < 3)).any()
            assert left == 0 or left >= 3
            assert not cases[told == 0].any()


def test_the_ledger_says_so_before_it_is_told(tmp_path: Path) -> None:
    run = begun(tmp_path)
    sent_by(run, SITES[0])
    (entry,) = holder_ledger(run.experiment).spendings()
    assert entry.mechanism == FINAL
    told = set(site_cases(run.site(SITES[0]), "test").records)
    assert holder_ledger(run.experiment).evaluated_only() == told


def lying(run: Staged, monkeypatch: pytest.MonkeyPatch, change: Any) -> FinalOutcome:
    """What comes of it where one site sends something else than what it has."""
    topic = end_run(run.coordinator)
    honest = stage.save

    for site in SITES:
        with monkeypatch.context() as patch:
            if site == SITES[1]:
                patch.setattr(stage, "save", lambda arrays: honest(change(dict(arrays))))
            evaluate_at_end(run.call(site), 1)
    return receive_final(run.coordinator, topic, SITES, info_of(run))


LIES = {
    "groups of more cases than it has": lambda a: {**a, "sex.cases": a["sex.cases"] + 1},
    "groups of fewer cases than it has": lambda a: {**a, "sex.cases": a["sex.cases"] // 2},
    "more cases than the plan says": lambda a: {n: x * 2 for n, x in a.items()},
    "a group that it says nothing of": lambda a: {
        **a, "age.told": np.array([0, 1, 1], np.int32),
    },
    "no groups": lambda a: {n: x for n, x in a.items() if "." not in n},
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_site_that_tells_of_groups_that_it_cannot_have_is_in_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    found = lying(begun(tmp_path), monkeypatch, LIES[lie])
    assert set(found.missing) == {SITES[1]}
    assert all(g.told_by == (SITES[0],) for gs in found.sums.groups.values() for g in gs)


def test_what_is_no_file_of_arrays_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path)
    topic = end_run(run.coordinator)
    monkeypatch.setattr(stage, "save", lambda arrays: b"\xff" * 100)
    evaluate_at_end(run.call(SITES[0]), 1)
    found = receive_final(run.coordinator, topic, SITES[:1], info_of(run))
    assert "cannot be read" in found.missing[SITES[0]]


def test_a_model_without_numbers_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path)
    honest = stage._predicted
    monkeypatch.setattr(
        stage,
        "_predicted",
        lambda *given: {
            n: a * np.nan if a.dtype.kind == "f" else a for n, a in honest(*given).items()
        },
    )
    assert set(ended(run).missing) == set(SITES)
    assert "predicts no numbers" in ended(begun(tmp_path)).missing[SITES[0]]


def test_a_site_takes_part_in_no_run_with_subgroups_that_its_policy_refuses(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path, policy="subgroups: refused")
    with pytest.raises(RefusalError, match=r"\(subgroups\)"):
        take_part(run.call(SITES[0]))
    with pytest.raises(RefusalError, match="groups of its test cases by sex, age are asked"):
        evaluate_at_end(run.call(SITES[0]), 1)


def test_a_policy_that_has_changed_since_holds_at_the_end(tmp_path: Path) -> None:
    run = begun(tmp_path)
    run.site(SITES[0])
    end_run(run.coordinator)
    home = run.home(SITES[0])
    text = home.policy_path.read_text()
    home.write_policy(text.replace("subgroups: allowed", "subgroups: refused"))
    with pytest.raises(RefusalError, match="tells of no subgroups of its test cases"):
        evaluate_at_end(run.call(SITES[0]), 1)


def test_a_coordinator_gets_nothing_that_is_not_in_the_plan(tmp_path: Path) -> None:
    run = begun(tmp_path, subgroups=None)
    end_run(run.coordinator)
    with pytest.raises(RefusalError, match="by its plan nothing is asked for then"):
        evaluate_at_end(run.call(SITES[0]), 1)


def test_of_a_data_set_a_careful_site_tells_of_one_set_of_groups_alone(tmp_path: Path) -> None:
    """Who is told how many are 50 and older, and then 51 and older, knows how many are 50."""
    run = begun(tmp_path, policy="min_count: 3", min_count=3)
    ended(run)
    again = begun(tmp_path, policy="min_count: 3", min_count=3)
    ended(again)
    home = run.home(SITES[0])
    for change in ({"subgroups": {"sex": ["F", "M"], "age": [51]}}, {"min_count": 4}):
        other = (
            begun(tmp_path, min_count=3, **change)
            if "min_count" not in change
            else begun(tmp_path, min_count=4)
        )
        with pytest.raises(RefusalError, match="it has told of others before"):
            refuse_other_subgroups(home, other.experiment)
        other.home(SITES[0]).write_policy(home.policy_path.read_text())
        with pytest.raises(RefusalError, match="differences are groups of few patients"):
            evaluate_at_end(other.call(SITES[0]), 1)
        with pytest.raises(RefusalError, match="it has told of others before"):
            take_part(other.call(SITES[0]))


def test_of_a_run_a_careful_site_tells_of_one_model_alone(tmp_path: Path) -> None:
    """A coordinator says of each round that it was the last; differences are of few cases."""
    run = begun(tmp_path, policy="min_count: 3", min_count=3, share="statistics")
    ended(run)
    ended(run)
    path = run.folder.state_path(1)
    state = read_state(path)
    write_state(path, replace(state, weights=state.weights + np.float32(0.01)))
    run.resume()
    with pytest.raises(RefusalError, match="by another model"):
        ended(run)
    free = begun(tmp_path)
    ended(free)
    write_state(free.folder.state_path(1), replace(state, weights=state.weights + np.float32(0.01)))
    free.resume()
    assert not ended(free).missing


def test_a_site_that_withholds_nothing_may_be_asked_for_any_groups(tmp_path: Path) -> None:
    ended(begun(tmp_path))
    found = ended(begun(tmp_path, subgroups={"age": [51]}))
    assert not found.missing
    assert not begun(tmp_path).home(SITES[0]).subgroups_path.exists()


def test_a_record_of_subgroups_that_is_damaged_stops_the_site_in_words(tmp_path: Path) -> None:
    run = begun(tmp_path, policy="min_count: 3", min_count=3)
    path = run.home(SITES[0]).subgroups_path
    ended(run)
    path.write_text("{")
    with pytest.raises(ConsiliumError, match="cannot be read"):
        refuse_other_subgroups(run.home(SITES[0]), run.experiment)
