"""What a worker tells of a stage that failed."""

import pytest
import torch

from federated.errors import ConsiliumError, RefusalError
from federated.stages.worker import run_and_report
from tests.federated.federation import SITE, begin


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
