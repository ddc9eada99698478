"""Rounds encrypted under each site's own key: the very sum that is in the clear."""

import dataclasses
import json

import numpy as np
import pytest

from federated.exchange import kinds
from federated.run.update_files import pack_payload, read_payload, read_state
from federated.stages.site import open_site
from federated.weights.bounded_file import Content
from tasks.aggregate import add_payloads
from tests.flows.conftest import call_of, messages, weights

pytestmark = pytest.mark.usefixtures("plainly")

QUANTISED = ["compression.bits=8"]
RLWE = [*QUANTISED, "protection.name=rlwe_secagg", "runner.name=processes", "runner.workers=2"]
CONTINUE = ["sites.on_dropout=continue", "protection.min_sites=2"]


@pytest.mark.usefixtures("prefect_server")
def test_encrypted_quantised_values_give_the_very_same_model_and_resume_to_it(run, known):
    plain = known(2, *QUANTISED)
    first = run(overrides=RLWE, rounds=1)
    hidden = run(resume=first.run_id, rounds=2)
    np.testing.assert_array_equal(weights(plain), weights(hidden))
    record, clear = hidden.records()[1]["bytes"], plain.records()[1]["bytes"]
    # Of three sites less than fourteen bits for eight, and small messages; the sum comes back in
    # the clear.
    assert clear["up"] < record["up"] < clear["up"] * 1.75
    assert clear["down"] < record["down"] < clear["down"] + 3 * 20_000
    said = json.loads(hidden.summary_path.read_text())["protection"]
    assert (said["name"], said["min_sites"], said["computational_security"]) == (
        *("rlwe_secagg", 3, 128),
    )


@pytest.mark.parametrize("stage", ["advertise", "share", "protect"])
def test_a_dropout_before_sending_gives_the_mean_of_the_others(
    run, known, in_process, failing, stage
):
    gone = "protect site-01 1"
    failing(f"{stage} site-01 1", gone)
    hidden = run(rounds=1, overrides=[*RLWE, *CONTINUE])
    plain = known(1, *QUANTISED, CONTINUE[0], failed=gone)
    assert hidden.records()[0]["sites"] == ["site-00", "site-02"]
    np.testing.assert_array_equal(weights(hidden), weights(plain))


def test_a_site_that_does_not_answer_is_in_the_sum(run, known, in_process, failing):
    failing("answer site-01 1")
    hidden = run(rounds=1, overrides=[*RLWE, CONTINUE[0]])
    np.testing.assert_array_equal(weights(hidden), weights(known(1, *QUANTISED)))


def test_a_payload_that_is_not_under_the_key_that_was_masked_loses_the_round_and_ends_no_run(
    run, in_process, monkeypatch
):
    def changing(coordinator, topic, sites, masks, length):
        message = coordinator.mailbox.receive(topic, kinds.PAYLOAD, "site-01", 2**28)
        payload = read_payload(Content(message.body, "of site-01"))
        body = payload.body.copy()
        body[-1] ^= 1
        for path in messages(coordinator.folder, kinds.PAYLOAD, topic.round):
            if path.parent.name == "site-01":
                path.unlink()
        # By the site itself: nobody else could sign it.
        site = open_site(call_of(coordinator.folder, "site-01"))
        content = pack_payload(dataclasses.replace(payload, body=body))
        site.to_coordinator(topic, kinds.PAYLOAD, content)
        return add_payloads(coordinator, topic, sites, masks, length)

    monkeypatch.setattr("tasks.aggregate.add_payloads", changing)
    folder = run(rounds=1, overrides=RLWE)
    (record,) = folder.records()
    assert "cannot be opened with the sum of the sites' keys" in record["lost"]
    # Which site it was is hidden with the rest.
    assert record["sites"] == []
    assert record["dropped"] == {}
    first, second = (read_state(folder.state_path(number)).weights for number in (0, 1))
    np.testing.assert_array_equal(first, second)
