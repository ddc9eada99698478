"""Runs of a consortium whose sites are parties of their own: runner.name=sites."""

from contextlib import ExitStack

import numpy as np
import pytest

from federated.files import read_json
from federated.run.coordinator_home import CoordinatorHome
from flows.coordinator_metrics import CoordinatorMetrics
from flows.site_metrics import SiteMetrics
from tests.flows.conftest import full_run, weights
from tests.flows.consortium import make_consortium

pytestmark = pytest.mark.usefixtures("prefect_server")
SITES = "runner.name=sites"


def test_the_model_is_that_of_simulated_sites_with_the_same_cases(project, known):
    alone = known(2)
    parties = make_consortium(project)
    with ExitStack() as stack:
        for party in parties.values():
            stack.enter_context(party.at_work())
        folder = full_run(overrides=[SITES], register_model=False)
    assert np.array_equal(weights(folder), weights(alone))
    summary, expected = read_json(folder.summary_path), read_json(alone.summary_path)
    assert summary["metrics"] == expected["metrics"]
    assert summary["sites"] == sorted(parties)
    assert not (folder.root / "sites").exists()
    counted = CoordinatorMetrics(CoordinatorHome.default()).text().decode()
    assert 'consilium_rounds_total{experiment="tiny"} 2.0' in counted
    for name, party in parties.items():
        assert f'consilium_site_rounds_total{{outcome="summed",site="{name}"}} 2.0' in counted
        done = SiteMetrics(party.home).text().decode()
        assert 'stages_total{outcome="done",stage="local-train"} 2.0' in done
