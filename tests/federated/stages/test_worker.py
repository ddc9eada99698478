"""What a worker tells of a stage that failed."""

from dataclasses import replace

import pytest
import torch

from federated.errors import ConsiliumError, RefusalError
from federated.stages.take_part import take_part
from federated.stages.worker import run_and_report
from tests.federated.federation import SITE, begin, edit


def too_large(call, round_number):
    raise torch.OutOfMemoryError("Tried to allocate 7 cases")


def test_a_gpu_that_is_too_small_is_told_with_the_remedy(project):
    run = begin()
    with pytest.raises(ConsiliumError, match=r"ran out at site-00, in too_large.*runner\.workers"):
        run_and_report(too_large, run.call(SITE), 1)


def test_of_a_private_run_the_site_keeps_to_itself_that_it_was(project):
    """Memory follows the batch that was drawn."""
    run = begin("privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=1e-3")
    with pytest.raises(RefusalError, match="the reason stays with the site") as told:
        run_and_report(too_large, run.call(SITE), 1)
    assert "memory" not in str(told.value)
    assert "The memory of the GPU ran out" in run.store(SITE).error_path.read_text()


def test_why_a_privacy_cannot_be_reached_is_told_before_the_first_round(project):
    """It follows from the configuration and the number of cases, which everyone knows."""
    run = begin("privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=1e-3")
    with pytest.raises(ConsiliumError, match="cannot be reached"):
        edit(run, privacy={"name": "dp_sgd", "epsilon": 1e-9, "delta": 1e-12})
    with pytest.raises(RefusalError, match=r"cannot be reached with any noise.*Raise privacy\.eps"):
        run_and_report(take_part, replace(run.call(SITE), attempt=2))


def test_other_errors_of_a_private_site_stay_with_it_before_the_first_round_too(project):
    run = begin("privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=1e-3")
    run.store(SITE).data_path.write_text("jane-doe.nii.gz")
    with pytest.raises(RefusalError, match="the reason stays with the site"):
        run_and_report(take_part, run.call(SITE))
    assert "cannot be read" in run.store(SITE).error_path.read_text()
    assert run.store(SITE).error_path.stat().st_mode & 0o077 == 0


def unforeseen(call, round_number):
    raise ValueError("jane-doe.nii.gz: buffer is smaller than requested size")


def test_an_error_that_nobody_foresaw_stays_with_a_private_site_too(project):
    """It may name a file, and a file its patient; with where in the program it came up."""
    run = begin("privacy.name=dp_sgd", "privacy.noise_multiplier=1", "privacy.delta=1e-3")
    with pytest.raises(RefusalError, match="the reason stays with the site") as told:
        run_and_report(unforeseen, run.call(SITE), 1)
    assert told.value.__suppress_context__
    assert "jane-doe" not in str(told.value)
    kept = run.store(SITE).error_path
    assert "jane-doe" in kept.read_text()
    assert "in unforeseen" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0


def test_such_an_error_of_another_run_is_told_as_it_is(project):
    run = begin()
    with pytest.raises(ValueError, match="jane-doe"):
        run_and_report(unforeseen, run.call(SITE), 1)
    assert not run.store(SITE).error_path.exists()
