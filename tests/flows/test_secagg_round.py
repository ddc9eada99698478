"""Rounds under SecAgg+: the very sum that is in the clear, also when sites drop out."""

import json
from dataclasses import replace

import numpy as np
import pytest

import flows.secagg
import tasks.secagg
from federated.errors import ConsiliumError
from federated.exchange.audit import AuditLog
from federated.protection.secagg.keys import new_seed
from federated.run.runs import latest_run
from federated.run.update_files import read_state
from federated.site.home import SiteHome
from federated.site.key_store import KeyStore
from federated.stages import secagg
from tasks.pool import run_stage
from tasks.secagg import forget
from tests.flows.conftest import kept_at, messages, weights

pytestmark = pytest.mark.usefixtures("plainly")

LEVELS = ["compression.bits=8"]
SECAGG = [*LEVELS, "protection.name=secagg_plus", "runner.name=processes", "runner.workers=2"]
CONTINUE = ["sites.on_dropout=continue"]
TWO = ["protection.min_sites=2"]


def secrets_of(place):
    """What sites have kept of rounds, in the homes that lie in a folder."""
    return list(place.rglob("sites/*/runs/*/secagg/round-*.secret*"))


@pytest.mark.usefixtures("prefect_server")
def test_masked_quantised_values_give_the_very_same_model_and_resume_to_it(run, known):
    plain = known(2, *LEVELS)
    first = run(overrides=SECAGG, rounds=1)
    masked = run(resume=first.run_id, rounds=2)
    np.testing.assert_array_equal(weights(plain), weights(masked))
    record = masked.records()[1]
    clear = plain.records()[1]["bytes"]
    # Two bytes a quantised value, and small messages; the sum comes back in the clear.
    assert clear["up"] * 2 < record["bytes"]["up"] < clear["up"] * 2.05
    # Of three sites the signed messages of each, which every site gets several times.
    assert clear["down"] < record["bytes"]["down"] < clear["down"] + 3 * 20_000
    assert record["seconds"]["advertise"] > 0
    assert record["seconds"]["unmask"] > 0
    left = {path.parts[-3] for path in messages(masked, round_number=2)}
    assert left == {"state", "evaluation", "final-plan", "own-model"}


@pytest.mark.parametrize("stage", ["share", "protect", "answer"])
def test_secrets_of_a_site_that_never_answers_are_erased_when_the_round_is_over(
    run, in_process, failing, stage
):
    failing(f"{stage} site-01 1")
    folder = run(overrides=[*SECAGG, *CONTINUE, *TWO], rounds=1)
    assert not secrets_of(folder.root)


@pytest.mark.parametrize("stage", ["advertise", "share", "protect", "answer"])
def test_secrets_are_erased_when_the_round_is_broken_off(
    run, in_process, failing, project, monkeypatch, stage
):
    made = []
    monkeypatch.setattr(
        flows.secagg, "forget", lambda *given: (made.append(secrets_of(project)), forget(*given))
    )
    failing(f"{stage} site-01 1")
    with pytest.raises(ConsiliumError, match="no power"):
        run(overrides=SECAGG, rounds=1)
    assert made[0]
    assert not secrets_of(project)


def test_secrets_are_erased_once_answered_and_lie_in_their_sites_home(
    run, in_process, project, monkeypatch
):
    seen = {}
    monkeypatch.setattr(
        tasks.secagg,
        "run_stage",
        lambda pool, stage, call, *given: (
            seen.setdefault(stage.__name__, []).extend(secrets_of(project)),
            run_stage(pool, stage, call, *given),
        )[1],
    )
    folder = run(overrides=SECAGG, rounds=1)
    place = kept_at(folder, "site-00").secrets
    assert {path.parent for path in seen["answer_site"]} == {
        kept_at(folder, site).secrets for site in folder.sites()
    }
    # What is left says what was done, so that nothing is made twice; it holds no secret.
    assert [path.name for path in place.iterdir()] == ["round-001-attempt-1.done.json"]
    path = SiteHome(folder.home_path("site-00")).answered_path
    ((answered,),) = (states.values() for states in json.loads(path.read_text()).values())
    assert [site.split()[0] for site in answered] == folder.sites()
    assert path.stat().st_mode & 0o077 == 0
    assert place.stat().st_mode & 0o077 == 0
    assert place.is_relative_to(folder.home_path("site-00"))
    assert not KeyStore.of(SiteHome(folder.home_path("site-00")), folder.run_id).folder.exists()


@pytest.mark.parametrize("stage", ["advertise", "share", "protect"])
def test_a_dropout_before_sending_gives_the_mean_of_the_others(
    run, known, in_process, failing, stage
):
    gone = "protect site-01 1"
    failing(f"{stage} site-01 1", gone)
    masked = run(rounds=1, overrides=[*SECAGG, *CONTINUE, *TWO])
    plain = known(1, *LEVELS, *CONTINUE, failed=gone)
    assert masked.records()[0]["dropped"] == {"site-01": "site-01 has no power."}
    assert masked.records()[0]["sites"] == ["site-00", "site-02"]
    np.testing.assert_array_equal(weights(masked), weights(plain))


def test_a_site_that_does_not_answer_is_in_the_sum(run, known, in_process, failing):
    failing("answer site-01 1")
    masked = run(rounds=1, overrides=[*SECAGG, *CONTINUE])
    assert masked.records()[0]["dropped"] == {}
    np.testing.assert_array_equal(weights(masked), weights(known(1, *LEVELS)))


def test_no_sum_of_two_sites_is_unmasked(run, in_process, failing, project):
    failing("protect site-01 1")
    with pytest.raises(ConsiliumError, match=r"is of 2 of 3 sites.*min_sites=3.*missing: site-01"):
        run(rounds=1, overrides=[*SECAGG, *CONTINUE])
    assert not latest_run(project / "runs", "tiny").state_path(1).exists()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            ["share site-01 1", "share site-02 1"],
            r"1 of 3 sites are left.*missing: site-01, site-02",
        ),
        (
            ["answer site-01 1", "answer site-02 1"],
            r"cannot be unmasked.*missing: site-01, site-02",
        ),
    ],
)
def test_below_the_threshold_the_missing_are_named_and_nothing_is_unmasked(
    run, in_process, failing, told, said, project
):
    failing(*told)
    with pytest.raises(ConsiliumError, match=said):
        run(rounds=1, overrides=[*SECAGG, *CONTINUE])
    folder = latest_run(project / "runs", "tiny")
    assert folder.done_rounds() == 0
    assert not folder.state_path(1).exists()


def test_a_site_answers_for_one_sum_a_round(run, known, in_process, failing):
    """Killed after the answers and resumed with another dropout, the round would leak."""
    failing("answer site-01 1", "answer site-02 1")
    with pytest.raises(ConsiliumError, match="cannot be unmasked"):
        run(rounds=1, overrides=[*SECAGG, *CONTINUE, *TWO])
    failing("protect site-02 1")
    with pytest.raises(ConsiliumError, match=r"opened of site-00, .* alone.* Missing: site-02"):
        run(resume="latest", rounds=1)
    failing()
    resumed = run(resume="latest", rounds=1)
    np.testing.assert_array_equal(weights(resumed), weights(known(1, *LEVELS)))


def test_no_message_of_a_site_holds_its_secrets(run, in_process, failing, project, monkeypatch):
    """A round that failed in its last stage leaves all that passed by the coordinator."""
    kept = {}
    monkeypatch.setattr(
        flows.secagg,
        "forget",
        lambda *given: kept.update(
            {p.parents[3].name: p.read_text() for p in secrets_of(project) if p.suffix == ".json"}
        ),
    )
    failing("answer site-01 1", "answer site-02 1")
    with pytest.raises(ConsiliumError):
        run(rounds=1, overrides=[*SECAGG, *CONTINUE])
    folder = latest_run(project / "runs", "tiny")
    secrets = json.loads(kept["site-01"])
    hidden = [secrets["own_seed"], secrets["masking_seed"], secrets["sealing"]]
    passed = ("advertised", "shares", "inbox", "payload", "answer")
    assert [len(messages(folder, kind, 1)) for kind in passed] == [3, 3, 3, 3, 1]
    own = folder.home_path("site-01")
    for path in folder.root.rglob("*"):
        if path.is_file() and not path.is_relative_to(own):
            content = path.read_bytes()
            assert not any(bytes.fromhex(secret) in content for secret in hidden)
            assert not any(secret.encode() in content for secret in hidden)


def noise(secrets, shares):
    """Nothing that any holder but the dealer itself can open."""
    return {h: s if h == secrets.site else bytes(len(s)) for h, s in shares.items()}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("protection", "lie"), [("secagg_plus", "noise"), ("rlwe_secagg", "shares of another seed")]
)
def test_a_site_that_deals_shares_that_lead_to_nothing_loses_a_round_and_is_left_out(
    run, in_process, monkeypatch, protection, lie
):
    """In round 1 of 2 the sum is lost by it; the next goes on from the same model without it."""
    honest = secagg.protocol.share

    def dealing(secrets, advertised, session):
        if (secrets.site, session.number) != ("site-01", 1):
            return honest(secrets, advertised, session)
        if lie == "noise":
            return noise(secrets, honest(secrets, advertised, session))
        return honest(replace(secrets, own_seed=new_seed()), advertised, session)

    monkeypatch.setattr(secagg.protocol, "share", dealing)
    four = ["sites.count=4", "sites.partition=iid", f"protection.name={protection}"]
    folder = run(rounds=2, overrides=[*SECAGG, *four], prepared=None)
    first, second = folder.records()
    assert first["sites"] == []
    assert set(first["dropped"]) == {"site-01"}
    assert "site-01" in first["lost"]
    assert second["sites"] == ["site-00", "site-02", "site-03"]
    assert set(second["dropped"]) == {"site-01"}
    audit = AuditLog(folder.coordinator_path / "audit.jsonl").lines()
    assert [line["sender"] for line in audit if line["event"] == "faulty"] == ["site-01"]
    states = [read_state(folder.state_path(number)).weights for number in (1, 2)]
    assert (states[0] != states[1]).any()
