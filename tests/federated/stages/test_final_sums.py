"""Subgroups in a sum over all sites: those of statistics, and of no site anything."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.configuration.description_file import find_description
from federated.errors import ConsiliumError, RefusalError, TooFewSitesError
from federated.files import read_json, write_json
from federated.learning.subgroup_statistics import FinalSums
from federated.stages import final_evaluation as stage
from federated.stages import secagg
from federated.stages.begun_sums import (
    evaluated_with,
    left_out_before,
    note_begun,
    refuse_other_than_begun,
)
from federated.stages.coordinator import ask_final_sum, end_run
from federated.stages.entering import split_records
from federated.stages.final_evaluation import (
    collect_final,
    evaluate_at_end,
    receive_final,
    sum_at_end,
)
from federated.stages.named_sums import EVALUATION, FINAL
from federated.stages.site import SiteCall, open_site
from federated.stages.worker import worker_context
from tests.federated.staged_run import Staged, record
from tests.federated.stages import summing
from tests.federated.stages.summing import (
    HIDING,
    PROTECTIONS,
    add,
    begin_sums,
    exchange,
    open_up,
)
from tests.federated.stages.test_final_evaluation import GROUPS, own_pictures


def begun(tmp_path: Path, name: str, **sections: Any) -> Staged:
    """A run of three sites that tell subgroups in a sum, whose first model is left as it was."""
    data = tmp_path / "data"
    if not data.is_dir():
        own_pictures(tmp_path, 96)
    described = find_description("mine", data)
    value = {
        "data": {"dataset": "mine", "source": "files", "root": str(data), "described": described},
        "evaluation": {"share": "sums", "subgroups": GROUPS},
        "rounds": 1,
    }
    run = begin_sums(tmp_path / f"runs-{name}", data, name, **value | sections)
    record(run, 1, list(run.sites))
    return run


def summed(run: Staged, sites: list[str] | None = None) -> FinalSums:
    """The whole of it; of the parts of some sites alone, as if the others had dropped out."""
    topic = ask_final_sum(run.coordinator)
    roster = exchange(run, topic)
    for site in run.sites:
        sum_at_end(run.call(site), 1)
    responded = add(run, topic, roster, sites or run.sites)
    open_up(run, topic, roster, responded)
    info = worker_context(run.site(run.sites[0])).info
    return collect_final(run.coordinator, topic, info, responded, responded[0])


def in_the_clear(tmp_path: Path) -> FinalSums:
    run = begun(tmp_path, "plain", evaluation={"share": "statistics", "subgroups": GROUPS})
    topic = end_run(run.coordinator)
    for site in run.sites:
        evaluate_at_end(run.call(site), 1)
    info = worker_context(run.site(run.sites[0])).info
    return receive_final(run.coordinator, topic, run.sites, info).sums


def metrics_of(sums: FinalSums) -> dict[tuple[str, str], Mapping[str, float | None]]:
    return {
        (attribute, group.name): group.measured.metrics
        for attribute, groups in sums.groups.items()
        for group in groups
        if group.measured is not None
    }


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_protected_sum_gives_the_groups_of_statistics(tmp_path: Path, protection: str) -> None:
    run = begun(tmp_path, protection)
    found = summed(run)
    clear = metrics_of(in_the_clear(tmp_path / "clear"))
    for place, metrics in metrics_of(found).items():
        for name, value in metrics.items():
            wanted = clear[place][name]
            assert value == (None if wanted is None else pytest.approx(wanted, abs=1e-5)), name
    assert all(g.told_by == tuple(run.sites) for gs in found.groups.values() for g in gs)


@pytest.mark.parametrize("protection", HIDING)
def test_of_what_is_summed_nothing_of_a_site_can_be_read(tmp_path: Path, protection: str) -> None:
    run = begun(tmp_path, protection)
    summed(run)
    passed = b"".join(p.read_bytes() for p in run.folder.exchange_path.rglob("*") if p.is_file())
    assert b"sex.confusion" not in passed
    assert b"coarse_scores" not in passed


@pytest.mark.parametrize("protection", HIDING)
def test_a_sum_of_one_site_fewer_is_not_opened_after_it(tmp_path: Path, protection: str) -> None:
    """Their difference would be what the third site tells of its groups."""
    run = begun(tmp_path, protection, protection={"min_sites": 2})
    summed(run)
    run.resume()
    if run.experiment.protection.keyed:
        from tests.federated.stages.summing import tell_key

        tell_key(run)
    with pytest.raises(ConsiliumError):
        summed(run, run.sites[:2])


def after_one_sum(tmp_path: Path, protection: str, first: str) -> tuple[Staged, Callable[..., Any]]:
    """A run in which all sites were in the ``first`` of two sums, and what makes the other one."""
    run = begun(tmp_path, protection, protection={"min_sites": 2})
    steps = [partial(summing.summed, run), partial(summed, run)]
    if first == "the end":
        steps.reverse()
    steps[0]()
    return run, steps[1]


def assert_of_the_same_sites(run: Staged, other: Callable[..., Any]) -> None:
    """The other sum is refused of fewer sites, and made of the same."""
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        other(run.sites[:2])
    summing.resume(run)
    assert other() is not None


@pytest.mark.parametrize(("protection", "first"), [
    ("packed_bfv", "the evaluation"), ("secagg_plus", "the end"), ("rlwe_secagg", "the evaluation"),
])  # fmt: skip
def test_at_the_end_a_sum_is_of_those_with_whom_the_same_model_was_evaluated(
    tmp_path: Path, protection: str, first: str
) -> None:
    """Groups add up to all test cases, so that the difference is what one site alone counts."""
    run, other = after_one_sum(tmp_path, protection, first)
    assert_of_the_same_sites(run, other)


@pytest.mark.parametrize(("protection", "first"), [
    ("packed_bfv", "the end"), ("secagg_plus", "the evaluation"),
])  # fmt: skip
def test_so_it_is_where_a_site_has_answered_before_splits_were_written_down(
    tmp_path: Path, protection: str, first: str
) -> None:
    run, other = after_one_sum(tmp_path, protection, first)
    for site in run.sites:
        forget_splits(run.call(site), first)
    assert_of_the_same_sites(run, other)


def forget_splits(call: SiteCall, first: str) -> None:
    """Leave of what a site has answered for what was written down until 27 November 2026."""
    site = open_site(call)
    named = EVALUATION if first == "the evaluation" else FINAL
    kept = secagg._data(split_records(site, named.splits), f"sum {named.name}")
    stored = read_json(site.home.answered_path)
    assert len(stored) == 1 + len(named.predicted)
    write_json(site.home.answered_path, {kept: stored[kept]})


def test_a_coordinator_knows_with_whom_the_model_of_any_round_was_evaluated(tmp_path: Path) -> None:
    """The run may keep that of one before the last; other sums of rounds before are forgotten."""
    run = begun(tmp_path, "secagg_plus")
    coordinator, told = run.coordinator, summing.ask(run)
    first, *_, last = run.sites
    note_begun(coordinator, told, [first, last])
    note_begun(coordinator, replace(told, round=2, state="another", sum=""), run.sites)
    note_begun(coordinator, replace(told, round=2, state="another"), run.sites)
    asked = replace(ask_final_sum(coordinator), round=2)
    assert evaluated_with(coordinator, asked) == (first, last)
    assert set(left_out_before(coordinator, asked, run.sites)) == {run.sites[1]}
    with pytest.raises(TooFewSitesError, match=rf"evaluated after round 1.* Missing: {last}"):
        refuse_other_than_begun(coordinator, asked, run.sites[:2])
    assert left_out_before(coordinator, told, run.sites) == {}
    assert evaluated_with(coordinator, replace(asked, state="never evaluated")) == ()


def test_a_sum_that_no_cases_have_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path, "plain")
    honest = stage.whole_statistics

    def dishonest(*given: Any) -> np.ndarray:
        vector = honest(*given).copy()
        vector[0] -= 1
        return vector

    monkeypatch.setattr(stage, "whole_statistics", dishonest)
    with pytest.raises(ConsiliumError, match=r"they are of .* cases, and the sites"):
        summed(run)


def test_groups_that_do_not_add_up_over_sites_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path, "plain")
    honest = stage.final_of

    def dishonest(*given: Any) -> Any:
        told = honest(*given)
        told.arrays["sex.cases"][0] += 1
        return told

    monkeypatch.setattr(stage, "final_of", dishonest)
    with pytest.raises(ConsiliumError, match=r"'sex.cases' counts"):
        summed(run)


def test_a_coordinator_gets_a_sum_alone_where_the_plan_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path, "plain")
    end_run(run.coordinator)
    with pytest.raises(RefusalError, match="only in a sum over all sites"):
        evaluate_at_end(run.call(run.sites[0]), 1)
    other = begun(
        tmp_path / "other", "plain", evaluation={"share": "statistics", "subgroups": GROUPS}
    )
    ask_final_sum(other.coordinator)
    with pytest.raises(RefusalError, match="or not in a sum"):
        sum_at_end(other.call(other.sites[0]), 1)
