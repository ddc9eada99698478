"""A run that ended while sites helped to open a sum goes on with the very same sites in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import tasks.aggregate
from federated.errors import ConsiliumError
from federated.files import read_json
from federated.run.folder import RunFolder
from federated.run.runs import latest_run
from federated.stages import secagg_relay
from tests.flows.conftest import weights

pytestmark = pytest.mark.usefixtures("plainly")

# Where the coordinator is, once all sites have given their word or their shares.
OPENING = {
    "secagg_plus": (secagg_relay, "unmask_sum"),
    "rlwe_secagg": (secagg_relay, "unmask_sum"),
    "packed_bfv": (tasks.aggregate, "hand_sum"),
}
protected = pytest.mark.parametrize("protection", OPENING)
CONTINUE = ["sites.on_dropout=continue", "protection.min_sites=2"]
PROCESSES = ["runner.name=processes", "runner.workers=2"]


class PowerCutError(BaseException):
    """The end of a process, of which nothing in it hears."""


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Lets the coordinator end as it is about to have a sum of a name opened."""

    @contextmanager
    def end(protection: str, name: str = "") -> Iterator[None]:
        module, function = OPENING[protection]
        honest = getattr(module, function)

        def cut(coordinator, topic, *given):
            if topic.sum == name:
                raise PowerCutError
            return honest(coordinator, topic, *given)

        with monkeypatch.context() as within:
            within.setattr(module, function, cut)
            with pytest.raises(PowerCutError):
                yield

    return end


def settings(protection: str, *more: str) -> list[str]:
    return [f"protection.name={protection}", "compression.bits=8", *CONTINUE, *PROCESSES, *more]


def last_run(project) -> RunFolder:
    found = latest_run(project / "runs", "tiny")
    assert found is not None
    return found


@protected
def test_a_site_that_was_out_as_a_sum_was_being_opened_stays_out_of_it(
    run, in_process, failing, ending, project, protection
):
    """With it the sum would be another one, to which those who have helped would not help."""
    chosen = settings(protection)
    failing("protect site-02 1")
    whole = run(rounds=2, overrides=chosen)
    with ending(protection):
        run(rounds=2, overrides=chosen)
    failing()
    assert last_run(project).done_rounds() == 0
    resumed = run(resume="latest")
    first, second = resumed.records()
    assert first["sites"] == ["site-00", "site-01"]
    assert list(first["dropped"]) == ["site-02"]
    assert "broke off as site-00, site-01 were helping" in first["dropped"]["site-02"]
    assert first["lost"] is None
    assert second["sites"] == resumed.sites()
    np.testing.assert_array_equal(weights(resumed), weights(whole))


@protected
def test_a_site_that_was_out_of_the_sum_of_an_evaluation_stays_out_of_it(
    run, in_process, failing, ending, protection
):
    chosen = settings(protection, "evaluation.share=sums", "selection.keep=last")
    failing("evaluate site-02 1")
    whole = run(rounds=2, overrides=chosen)
    with ending(protection, "evaluation"):
        run(rounds=2, overrides=chosen)
    failing()
    resumed = run(resume="latest")
    first, expected = resumed.records()[0], whole.records()[0]
    assert first["sites"] == resumed.sites()
    assert list(first["not_evaluated"]) == ["site-02"]
    assert first["metrics"] == expected["metrics"]
    np.testing.assert_array_equal(weights(resumed), weights(whole))


@protected
def test_no_sum_of_others_is_tried_while_a_site_is_missing_that_may_have_helped(
    run, in_process, failing, ending, project, protection
):
    """Else the others would have helped to two, and no sum of the round could ever be opened."""
    chosen = settings(protection)
    whole = run(rounds=1, overrides=chosen)
    with ending(protection):
        run(rounds=1, overrides=chosen)
    failing("protect site-02 1")
    with pytest.raises(ConsiliumError, match=r"of site-00, .* alone.* Missing: site-02"):
        run(resume="latest")
    assert not last_run(project).state_path(1).exists()
    failing()
    resumed = run(resume="latest")
    assert resumed.records()[0]["sites"] == resumed.sites()
    np.testing.assert_array_equal(weights(resumed), weights(whole))


def test_what_is_noted_of_sums_is_read_or_named(run, in_process, ending, project):
    with ending("secagg_plus"):
        run(rounds=1, overrides=settings("secagg_plus"))
    path = last_run(project).begun_sums_path
    (noted,) = read_json(path).values()
    assert noted["sites"] == last_run(project).sites()
    assert path.stat().st_mode & 0o077 == 0
    path.write_text('{"": {"round": 1}}')
    with pytest.raises(ConsiliumError, match=r"begun-sums\.json, cannot be read .*Put the file"):
        run(resume="latest")
