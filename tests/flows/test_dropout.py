"""Rounds in which a site fails."""

from itertools import pairwise

import numpy as np
import pytest

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.rounds.participation import select_sites
from federated.site.home import MEMORY_KINDS
from federated.weights.model_file import personal_sites
from tests.flows.conftest import kept_at, weights

pytestmark = pytest.mark.usefixtures("plainly")

ONE = ["sites.participation=0.1"]
SPARSE = ["compression.name=shared_mask", "compression.density=0.1", "strategy.name=scaffold"]


def test_a_site_that_drops_out_is_left_out_of_the_mean_and_keeps_what_it_had(run, failing):
    failing("protect site-01 2")
    folder = run(rounds=2, overrides=[*SPARSE, "sites.on_dropout=continue"])
    first, second = folder.records()
    assert first["dropped"] == {}
    assert second["dropped"] == {"site-01": "site-01 has no power."}
    assert second["sites"] == ["site-00", "site-02"]
    assert second["bytes"]["up"] == pytest.approx(first["bytes"]["up"] * 2 / 3, rel=0.01)
    for kind in MEMORY_KINDS:
        newest = [path.name.split(".")[0] for path in kept_at(folder, "site-01").memory_paths(kind)]
        assert newest == ["round-001"]
    assert set(second["per_site"]) == {"site-00", "site-01", "site-02"}


@pytest.mark.usefixtures("prefect_server")
def test_a_run_with_a_dropout_resumes_to_the_same_weights(run, failing):
    failing("protect site-01 1")
    settings = [*SPARSE, "sites.on_dropout=continue"]
    whole = run(rounds=2, overrides=settings)
    part = run(rounds=1, overrides=settings)
    np.testing.assert_array_equal(weights(whole), weights(run(resume=part.run_id, rounds=2)))


def test_a_dropout_that_nobody_evaluates_and_that_is_not_selected_next_keeps_what_it_had(
    run, failing
):
    """What it has made of the round is of a state that the run did not get to."""
    few = ["sites.participation=0.5", "selection.every=4", "selection.keep=last"]
    settings = [*SPARSE, *few, "sites.on_dropout=continue"]
    experiment, sites = load_experiment("tiny", settings), ["site-00", "site-01", "site-02"]
    selected = [select_sites(experiment, sites, number) for number in range(1, 5)]
    dropped, number = next(
        (site, number)
        for number, (before, after) in enumerate(pairwise(selected), start=1)
        for site in before
        if site not in after
    )
    failing(f"protect {dropped} {number}")
    folder = run(rounds=number + 1, overrides=settings)
    assert dropped in folder.records()[number - 1]["dropped"]
    for kind in MEMORY_KINDS:
        kept = [path.name for path in kept_at(folder, dropped).memory_paths(kind)]
        assert f"round-{number:03d}.{kind}.safetensors" not in kept


def test_a_site_that_fails_stops_the_run_unless_told_otherwise(run, failing):
    failing("protect site-01 1")
    with pytest.raises(ConsiliumError, match="site-01 has no power"):
        run()
    (selected,) = select_sites(load_experiment("tiny", ONE), ["site-00", "site-01", "site-02"], 1)
    failing(f"protect {selected} 1")
    with pytest.raises(ConsiliumError, match=r"All 1 sites have dropped out of round 1.*no power"):
        run(overrides=[*ONE, "sites.on_dropout=continue"])


def test_a_run_goes_on_without_what_a_site_does_not_do_and_says_so(run, failing):
    failing("take-part site-00 0", "evaluate site-01 2", "hand-over site-02 2")
    settings = ["strategy.name=fedper", "selection.keep=last", "sites.on_dropout=continue"]
    folder = run(rounds=2, overrides=settings)
    first, second = folder.records()
    assert first["sites"] == second["sites"] == ["site-01", "site-02"]
    assert first["absent"] == second["absent"] == {"site-00": "site-00 has no power."}
    assert (first["not_evaluated"], list(second["not_evaluated"])) == ({}, ["site-01"])
    assert list(second["per_site"]) == ["site-02"]
    assert second["metrics"]["val"]["accuracy"] == second["per_site"]["site-02"]["val"]["accuracy"]
    summary = read_json(folder.summary_path)
    assert summary["sites"] == ["site-01", "site-02"]
    assert list(summary["absent"]) == ["site-00"]
    assert list(summary["no_own_model"]) == ["site-02"]
    assert list(summary["not_evaluated"]) == ["site-01"]
    assert summary["rounds_lost"] == []
    assert personal_sites(folder.model_path) == ["site-01"]


def test_a_site_that_refuses_to_take_part_stops_the_run_unless_told_otherwise(run, failing):
    failing("take-part site-01 0")
    with pytest.raises(ConsiliumError, match="site-01 has no power"):
        run()
