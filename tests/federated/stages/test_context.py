"""What a stage reads of a round is that round's, or refused."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run.update_files import read_payload, read_state, write_payload, write_state
from federated.stages import aggregate
from federated.stages.aggregate import add_payloads, decrypt_site
from federated.stages.compress import compress_site
from federated.stages.context import read_round, read_run
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from tests.federated.federation import begin

pytestmark = pytest.mark.usefixtures("project")

ADAPTIVE = ("privacy.name=site_level", "privacy.clip=1", "privacy.noise_multiplier=1")


def test_a_state_of_another_round_is_refused():
    folder = begin()
    state = read_state(folder.state_path(0))
    write_state(folder.state_path(0), replace(state, round_number=4))
    with pytest.raises(ConsiliumError, match="that of round 4, and not of 0"):
        read_round(folder, 1)
    with pytest.raises(ConsiliumError, match="that of round 4, and not of 0"):
        add_payloads(folder, read_run(folder), 1, folder.sites())


def test_no_opening_of_a_key_is_counted_where_the_state_cannot_be_read(monkeypatch):
    folder, counted = begin(), []
    monkeypatch.setattr(aggregate, "site_key", lambda *_: SimpleNamespace(public=None))
    monkeypatch.setattr(aggregate, "count_opening", lambda *given: counted.append(given))
    folder.state_path(0).write_bytes(b"")
    with pytest.raises(ConsiliumError, match="cannot be read as a state"):
        decrypt_site(folder.root, folder.sites()[0], 1, folder.sites())
    assert counted == []


def test_a_plan_that_is_missing_is_told():
    folder = begin(*ADAPTIVE)
    folder.privacy_path.unlink()
    with pytest.raises(ConsiliumError, match=r"privacy\.json, cannot be read"):
        read_round(folder, 1)


@pytest.mark.parametrize(
    ("settings", "scalars"),
    [
        ((*ADAPTIVE, "privacy.adaptive.rate=0.5"), {}),
        ((*ADAPTIVE, "privacy.adaptive.rate=0.5"), {"below_clip": 0.0, "more": 1.0}),
        (ADAPTIVE, {"below_clip": 0.5}),
    ],
)
def test_a_payload_with_other_scalars_than_the_privacy_has_is_refused_by_its_site(
    settings, scalars
):
    folder = begin(*settings)
    sites = folder.sites()
    for site in sites:
        train_site(folder.root, site, 1)
        compress_site(folder.root, site, 1, 1 / len(sites))
        protect_site(folder.root, site, 1)
    add_payloads(folder, read_run(folder), 1, sites)
    path = folder.site_path(1, sites[1], "payload")
    write_payload(path, replace(read_payload(path), scalars=scalars))
    with pytest.raises(ConsiliumError, match=f"payload of {sites[1]} in round 1 is refused"):
        add_payloads(folder, read_run(folder), 1, sites)
    assert np.isfinite(read_state(folder.state_path(0)).weights).all()
