"""A site's update that is no finite number has no norm to clip: it must look like any other."""

import numpy as np
import pytest

from federated.privacy import SiteLevel
from federated.privacy.accounting import Release
from federated.privacy.noise import fresh_random
from tests.federated.federation import begin, sent

LARGE = ["privacy.noise_multiplier=10", "privacy.clip=1", "privacy.delta=1e-3"]
MECHANISMS = {
    "site_level": ["privacy.name=site_level", *LARGE],
    "site_level_distributed": [
        *("privacy.name=site_level_distributed", *LARGE, "compression.bits=16"),
        *("protection.name=packed_bfv", "runner.name=processes"),
    ],
}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("adaptive", [None, {}])
def test_what_is_sent_of_it_is_noise_alone(value, adaptive):
    privacy = SiteLevel(clip=1.0, noise_multiplier=1.0, adaptive=adaptive)
    update = np.array([value, 1.0, 2.0], np.float32)
    sent, scalars = privacy.protect_update(update, Release(1.0, 1.0, 1), 1.0, fresh_random())
    assert np.isfinite(sent).all()
    assert np.isfinite(list(scalars.values())).all()
    assert bool(scalars) == (adaptive is not None)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_site_that_diverges_sends_all_the_same(mechanism):
    """That it stops, or sends no numbers, would tell that its update was not zero."""
    run = begin(*MECHANISMS[mechanism], "training.lr=1e30", "training.local_epochs=3")
    assert np.isfinite(sent(run).vector).all()
