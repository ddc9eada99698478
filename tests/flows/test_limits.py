"""Just as many sites missing in a round as a sum bears, and one more.

Six sites, of which each has five neighbours, and four of the six holders of its shares have to
stay; under ``packed_bfv`` three sites have to be in a sum.
"""

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run.runs import latest_run
from tests.flows.conftest import messages, weights

pytestmark = pytest.mark.usefixtures("plainly", "in_process")

SITES = [f"site-{number:02d}" for number in range(6)]
ALONE = ["compression.bits=8", "sites.count=6", "sites.on_dropout=continue"]
HIDDEN = [*ALONE, "runner.name=processes", "runner.workers=2"]
MASKED = ["secagg_plus", "rlwe_secagg"]
# Who is out, the first so many of these: not those with the first names.
OUT = ["site-04", "site-01", "site-03", "site-00"]
BORNE = {"secagg_plus": 2, "rlwe_secagg": 2, "packed_bfv": 3}


def missing(stage, count):
    return [f"{stage} {site} 1" for site in OUT[:count]]


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def plain(run, failing, kept):
    """The weights of a round in the clear without the first so many; run once for all tests."""

    def look(count):
        if count not in kept:
            failing(*missing("protect", count))
            kept[count] = weights(run(rounds=1, overrides=ALONE, prepared=None))
        return kept[count]

    return look


@pytest.fixture
def hidden(run):
    def begin(protection):
        return run(rounds=1, overrides=[*HIDDEN, f"protection.name={protection}"], prepared=None)

    return begin


BEFORE_IT_IS_SENT = [
    *[(name, stage) for name in MASKED for stage in ("advertise", "share", "protect")],
    ("packed_bfv", "protect"),
]


@pytest.mark.parametrize(("protection", "stage"), BEFORE_IT_IS_SENT)
def test_the_sum_is_that_of_the_others(hidden, plain, failing, protection, stage):
    count = BORNE[protection]
    expected = plain(count)
    failing(*missing(stage, count), *missing("protect", count))
    folder = hidden(protection)
    assert folder.records()[0]["sites"] == sorted(set(SITES) - set(OUT[:count]))
    np.testing.assert_array_equal(weights(folder), expected)


@pytest.mark.parametrize(("protection", "stage"), BEFORE_IT_IS_SENT)
def test_with_one_more_nothing_is_opened_and_a_resumed_run_has_all(
    hidden, plain, failing, project, run, protection, stage
):
    count = BORNE[protection] + 1
    failing(*missing(stage, count), *missing("protect", count))
    with pytest.raises(ConsiliumError, match=", ".join(sorted(OUT[:count]))):
        hidden(protection)
    folder = latest_run(project / "runs", "tiny")
    assert not folder.state_path(1).exists()
    assert not messages(folder, "answer")
    assert not messages(folder, "opened")
    expected = plain(0)
    failing()
    np.testing.assert_array_equal(weights(run(resume="latest", rounds=1, prepared=None)), expected)


@pytest.mark.parametrize("stage", ["agree", "answer"])
@pytest.mark.parametrize("protection", MASKED)
def test_who_is_missing_once_it_has_sent_is_in_the_sum(hidden, plain, failing, protection, stage):
    expected = plain(0)
    failing(*missing(stage, 2))
    folder = hidden(protection)
    assert folder.records()[0]["dropped"] == {}
    np.testing.assert_array_equal(weights(folder), expected)


@pytest.mark.parametrize("stage", ["agree", "answer"])
@pytest.mark.parametrize("protection", MASKED)
def test_with_one_more_that_has_sent_the_sum_stays_hidden_until_they_are_back(
    hidden, plain, failing, project, run, protection, stage
):
    expected = plain(0)
    failing(*missing(stage, 3))
    with pytest.raises(ConsiliumError, match="site-01, site-03, site-04"):
        hidden(protection)
    assert not latest_run(project / "runs", "tiny").state_path(1).exists()
    failing()
    resumed = run(resume="latest", rounds=1, prepared=None)
    np.testing.assert_array_equal(weights(resumed), expected)


@pytest.mark.parametrize("protection", MASKED)
def test_one_missing_before_it_sends_and_one_after_are_two(hidden, plain, failing, protection):
    """Those that go at different stages count together: four answer of six."""
    expected = plain(1)
    failing(*missing("protect", 1), "answer site-01 1")
    folder = hidden(protection)
    np.testing.assert_array_equal(weights(folder), expected)
