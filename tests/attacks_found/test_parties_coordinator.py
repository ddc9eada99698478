"""A coordinator with its own key that asks more of a site than its plan and its policy say."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from federated.configuration.load import resolve
from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import sign
from federated.exchange.plan import RunPlan
from federated.exchange.policy_checks import run_epsilon
from federated.files import read_json, write_json
from federated.privacy.ledger import ledger_root
from federated.run.update_files import read_compressed, read_state, write_state
from federated.site.approvals import decide, proposals
from federated.stages.aggregate import (
    add_payloads,
    decrypt_site,
    hand_sum,
    received_sum,
    vouch_site,
)
from federated.stages.compress import compress_site
from federated.stages.coordinator import (
    ask_evaluation,
    begin_round,
    end_run,
    plan_run,
    propose,
    publish_state,
)
from federated.stages.evaluate import evaluate_site
from federated.stages.join import join_site
from federated.stages.keys import make_key
from federated.stages.local_train import train_site
from federated.stages.overlays import draw_site
from federated.stages.protect import protect_site
from federated.stages.secagg import agree_site, answer_site
from federated.stages.secagg_messages import masked_round
from federated.stages.secagg_relay import relay_responded, relay_views, unmask_sum
from federated.stages.site import open_site
from federated.stages.take_part import take_part
from federated.stages.worker import run_and_report
from tests.federated.exchange.parties import identity
from tests.federated.staged_run import (
    Staged,
    _exchange_keys,
    agree_on_key,
    begin,
    play_round,
    small_experiment,
    small_images,
    train_round,
)
from tests.federated.stages.lies import PRIVATE, QUANTISED, body_of, sign_plan

SITE, OTHER = "site-00", "site-01"
FOUR = {"sites": {"count": 4, "partition": "iid", "min_cases": 2}}
THREE = {"sites": {"count": 3, "partition": "iid", "min_cases": 2}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_images(tmp_path)


def policy(run: Staged, **lines: str) -> None:
    """Change lines of the site's policy, as its owner does before a run."""
    home = run.home(SITE)
    kept = [
        line
        for line in home.policy_path.read_text().splitlines()
        if line.split(":")[0] not in lines
    ]
    home.write_policy("\n".join([*kept, *(f"{k}: {v}" for k, v in lines.items()), ""]))


# --- Sums.


def test_two_openers_open_no_two_sums_of_one_round(tmp_path: Path, data: Path) -> None:
    """Each opens one sum; their difference is the update of the site that is in one alone."""
    sections = {**FOUR, **QUANTISED, "protection": {"name": "packed_bfv"}}
    run = begin(small_experiment(data, **sections), tmp_path / "runs")

    agree_on_key(run)
    topic = train_round(run, 1)

    def opened(sites: list[str]) -> np.ndarray[Any, Any]:
        add_payloads(run.coordinator, topic, sites)
        hand_sum(run.coordinator, topic, sites[0])
        for site in sites:
            with suppress(ConsiliumError):
                vouch_site(run.call(site), 1, sites)
        decrypt_site(run.call(sites[0]), 1, sites)
        return np.asarray(received_sum(run.coordinator, topic, sites[0]).numbers)

    assert opened(run.sites).any()
    with pytest.raises(ConsiliumError, match="was told of another one"):
        # The difference to the first one is what `site-00` sent.
        opened(run.sites[1:])


def masked_sum(run: Staged, sites: list[str], absent: str = "") -> np.ndarray[Any, Any]:
    """The sum of a round that the coordinator opens; ``absent`` is said to have dropped out."""
    topic = begin_round(run.coordinator, 1)
    roster = _exchange_keys(run, topic)

    for site in run.coordinator.run.selected(1):
        train_site(run.call(site), 1)
        compress_site(run.call(site), 1)
        protect_site(run.call(site), 1)
    masks = masked_round(run.coordinator.run, list(roster.advertised), topic)
    responded = [site for site in sites if site != absent]
    add_payloads(run.coordinator, topic, responded, masks)
    relay_responded(run.coordinator, topic, roster, responded)
    for site in responded:
        agree_site(run.call(site), 1)
    relay_views(run.coordinator, topic, responded)
    for site in responded:
        answer_site(run.call(site), 1)
    unmask_sum(run.coordinator, topic, roster, responded, responded)
    return np.asarray(received_sum(run.coordinator, topic, None).numbers)


MASKED = {
    "protection": {"name": "secagg_plus", "dropout": 0.25, "corrupted": 0.0},
    "compression": {"name": "shared_mask", "density": 1.0, "bits": 16},
}


def test_two_runs_of_one_seed_open_no_two_sums(tmp_path: Path, data: Path) -> None:
    """AUDIT H6: two honest runs on one machine, whose sums differ by one update."""
    experiment = small_experiment(data, **FOUR, **MASKED)
    first = begin(experiment, tmp_path / "runs")
    masked_sum(first, first.sites)
    second = begin(experiment, tmp_path / "runs")
    with pytest.raises(ConsiliumError, match="already answered for a sum"):
        masked_sum(second, second.sites, absent=SITE)


def test_what_a_state_that_differs_in_one_bit_tells(tmp_path: Path, data: Path) -> None:
    """Not stopped: sums from nearly the same state differ by nearly one update.

    docs/who-sees-what.md says so. Should sites come to refuse it, this test is to say that.
    """
    run = begin(small_experiment(data, **FOUR, **MASKED), tmp_path / "runs")
    first = masked_sum(run, run.sites)
    levels = read_compressed(run.store(SITE).work_path(1, "compressed")).numbers
    state = read_state(run.folder.state_path(0))
    weights = state.weights.copy()
    weights[0] = np.nextafter(weights[0], np.float32(1))
    write_state(run.folder.state_path(0), replace(state, weights=weights))
    run.resume()
    second = masked_sum(run, run.sites, absent=SITE)
    assert np.corrcoef(first - second, levels)[0, 1] > 0.99


# --- Whose keys.


def test_a_site_does_not_mask_with_sites_that_the_coordinator_has_made_up(
    tmp_path: Path, data: Path
) -> None:
    """With the keys of all others the coordinator is all others, and has the site's update."""
    run = begin(small_experiment(data, **THREE, **MASKED), tmp_path / "runs")
    known = run.home(OTHER).identity().public.fingerprint.replace(" ", "")
    policy(run, participants=f"['{known}']")

    def made_up(plan: RunPlan) -> RunPlan:
        ghosts = {name: identity(name).public for name in run.sites if name != SITE}
        return replace(plan, participants=plan.participants | ghosts)

    with pytest.raises(RefusalError, match=r"does not know site-02 .*\(participants\)"):
        sign_plan(run, made_up)


# --- More than the plan says.


def test_a_round_beyond_the_plan_is_refused(tmp_path: Path, data: Path) -> None:
    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    for number in (1, 2):
        play_round(run, number)
    begin_round(run.coordinator, 3)
    with pytest.raises(RefusalError, match="2 rounds"):
        train_site(run.call(SITE), 3)


def test_an_evaluation_that_the_plan_does_not_have_is_refused(tmp_path: Path, data: Path) -> None:
    selection = {"metric": "val/loss", "keep": "last", "every": 2}
    run = begin(small_experiment(data, **THREE, selection=selection), tmp_path / "runs")
    play_round(run, 1)
    ask_evaluation(run.coordinator, 1, run.sites)
    with pytest.raises(RefusalError, match="evaluated"):
        evaluate_site(run.call(SITE), 1)


def test_a_round_again_and_again_spends_no_more_than_the_policy_allows(
    tmp_path: Path, data: Path
) -> None:
    """Each attempt from another state is another release; max_epsilon is for all of them."""
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")

    release = run.coordinator.run.planned[SITE]
    epsilon = run_epsilon(run.experiment, release)
    assert epsilon is not None
    policy(run, max_epsilon=f"{1.01 * epsilon:.6g}")

    def begin_anew() -> None:
        state = read_state(run.folder.state_path(0))
        write_state(run.folder.state_path(0), replace(state, weights=state.weights + 1))
        run.resume()
        begin_round(run.coordinator, 1)
        train_site(run.call(SITE), 1)

    begin_anew()
    begin_anew()  # As many as the plan has rounds.
    with pytest.raises(RefusalError, match="max_epsilon"):
        begin_anew()


def test_delta_is_not_the_coordinators_to_choose(tmp_path: Path, data: Path) -> None:
    """With δ near 1 next to no noise has a small ε."""
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")
    policy(run, max_epsilon="1", min_noise_multiplier="0", max_delta="1e-4")
    config = small_experiment(
        data,
        **PRIVATE
        | {"privacy": {"name": "dp_sgd", "clip": 1.0, "noise_multiplier": 0.3, "delta": 0.999}},
    )
    write_json(run.folder.config_path, config.to_json())
    with pytest.raises(RefusalError, match="max_delta"):
        run.resume()


def test_noise_from_the_public_seed_is_no_noise(tmp_path: Path, data: Path) -> None:
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")
    policy(run, min_noise_multiplier="0.6")
    seeded = {"privacy": {**PRIVATE["privacy"], "noise": "seeded"}}
    write_json(run.folder.config_path, small_experiment(data, **PRIVATE | seeded).to_json())
    with pytest.raises(RefusalError, match="min_noise_multiplier"):
        run.resume()


# --- Stages that a plan did not ask for.


def test_a_join_hands_over_no_model_of_a_private_run(tmp_path: Path, data: Path) -> None:
    """The model of a join has no noise; the plan that the site accepted has privacy."""
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")
    policy(run, own_model="refused", privacies="[dp_sgd]")
    run.resume()
    box, start = run.coordinator.mailbox, run.coordinator.start

    offered = small_experiment(data, **THREE).to_json()
    box.send(start, kinds.OFFER, json.dumps(offered).encode(), SITE)
    box.send(start, kinds.STATE, run.folder.state_path(0).read_bytes(), SITE)
    box.send(start, kinds.STYLES, b"", SITE)
    with pytest.raises(RefusalError):
        join_site(run.call(SITE), 1)
    assert not list(run.folder.exchange_path.rglob(f"{kinds.OWN_MODEL}/{SITE}/*"))


def test_pictures_that_the_plan_does_not_have_are_not_made(tmp_path: Path, data: Path) -> None:
    """Off unless an experiment says so, also where the policy allows them."""
    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    play_round(run, 1)
    end_run(run.coordinator)
    with pytest.raises(RefusalError, match="they are not in the plan of the run"):
        draw_site(run.call(SITE), 1)


def test_what_goes_to_all_sites_counts_as_sent(tmp_path: Path, data: Path) -> None:
    sections = {**THREE, **QUANTISED, "protection": {"name": "packed_bfv"}}
    run = begin(small_experiment(data, **sections), tmp_path / "runs")

    publish_state(run.coordinator, 0)
    policy(run, max_megabytes="0.000001")
    with pytest.raises(RefusalError, match="max_megabytes"):
        make_key(run.call(SITE), 0)


def test_a_proposal_that_is_swapped_does_not_make_a_run_tell_its_errors(
    tmp_path: Path, data: Path
) -> None:
    """The plan that the site has accepted is private; the proposal lies there anew and is not."""
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")
    open_site(run.call(SITE))
    box, start = run.coordinator.mailbox, run.coordinator.start
    place = Place(start.run, 0, start.attempt, "all", kinds.PROPOSAL, COORDINATOR)
    (path,) = box.exchange.find(place)
    plan = RunPlan.from_bytes(body_of(path, box.me))
    path.unlink()
    public = replace(plan, experiment=small_experiment(data, **THREE))
    before = replace(start, plan="")
    box.exchange.post(sign(box.me, before, kinds.PROPOSAL, "all", public.to_bytes()))

    def stage(call: Any) -> None:
        raise ConsiliumError("case 17 has a mask of 3 voxels")

    with pytest.raises(ConsiliumError) as told:
        run_and_report(stage, run.call(SITE))
    assert "case 17" not in str(told.value)


def test_a_program_that_has_changed_since_the_plan_was_accepted_is_another(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the plan says is the coordinator's word; it is compared with the site's own files."""
    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    policy(run, code="same")
    begin_round(run.coordinator, 1)
    open_site(run.call(SITE))
    monkeypatch.setattr("federated.stages.plan_checks.code_digest", lambda: "another")
    with pytest.raises(RefusalError, match=r"another version of the program.*\(code\)"):
        train_site(run.call(SITE), 1)
    policy(run, code="any")
    open_site(run.call(SITE))


def test_a_coordinator_of_another_program_is_refused_by_the_sites_own_digest(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    policy(run, code="same")
    monkeypatch.setattr("federated.stages.coordinator.code_digest", lambda: "another")
    with pytest.raises(RefusalError, match=r"another version of the program, by line .*\(code\)"):
        run.resume()


# --- What a person has decided.


def test_a_person_decides_of_what_they_were_shown(tmp_path: Path, data: Path) -> None:

    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    policy(run, approval="required")
    with pytest.raises(RefusalError):
        run.resume()
    home = run.home(SITE)
    (run_id,) = proposals(home)  # what `consilium site show` prints
    config = read_json(run.folder.config_path)
    config["evaluation"]["share"] = "predictions"
    write_json(run.folder.config_path, config)
    with pytest.raises(RefusalError):
        run.resume()
    with pytest.raises(ConsiliumError, match="another one than was shown"):
        decide(home, run_id, "approved")


def test_a_run_that_a_person_refuses_later_stops_there(tmp_path: Path, data: Path) -> None:

    run = begin(small_experiment(data, **THREE), tmp_path / "runs")
    policy(run, approval="required")
    with pytest.raises(RefusalError):
        run.resume()
    home = run.home(SITE)
    (run_id,) = proposals(home)
    decide(home, run_id, "approved")
    run.resume()
    play_round(run, 1)
    proposals(home)
    decide(home, run_id, "refused")
    begin_round(run.coordinator, 2)
    with pytest.raises(RefusalError, match="refused"):
        train_site(run.call(SITE), 2)


def test_an_infinite_release_is_no_answer(tmp_path: Path, data: Path) -> None:
    """A site whose noise is infinite would make all ranges of quantisation infinite."""
    run = begin(small_experiment(data, **PRIVATE), tmp_path / "runs")
    proposed = propose(run.folder, run.coordinator.mailbox.members, run.sites)
    run.coordinator = replace(run.coordinator, start=proposed.start)
    for site in run.sites[1:]:
        take_part(run.call(site))
    counts = {k: len(v) for k, v in run.store(SITE).data()[1][SITE].items()}

    release = {"noise_multiplier": float("inf"), "sampling_rate": 0.5, "steps": 1}
    lie = {"counts": counts, "warnings": [], "release": release, "source": "files"}
    body = json.dumps(lie).encode()
    message = sign(run.home(SITE).identity(), proposed.start, kinds.JOINING, COORDINATOR, body)
    proposed.mailbox.exchange.post(message)
    coordinator, _ = plan_run(proposed)
    assert coordinator.run.sites == tuple(run.sites[1:])
    assert "range" in coordinator.absent[SITE]
    assert np.isfinite(coordinator.run.largest_noise)


def test_what_another_data_sets_name_does(tmp_path: Path, data: Path) -> None:
    """Not stopped, and docs/parties.md says so: it is entered in the ledger of the name."""
    arrays: dict[str, Any] = {}
    for split, count in {"train": 24, "val": 8, "test": 8}.items():
        arrays[f"{split}_images"] = np.zeros((count, 28, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 2)[:, None]
    np.savez(data / "medmnist" / "adrenalmnist3d.npz", **arrays)
    value = small_experiment(data, **THREE).to_json()
    value["data"]["dataset"] = "adrenalmnist3d"
    run = begin(resolve(value.pop("name"), value, "a test"), tmp_path / "runs")
    config = run.experiment.to_json()
    config["data"]["dataset"] = "vesselmnist3d"  # of the same form
    write_json(run.folder.config_path, config)
    policy(run, datasets="[adrenalmnist3d]")
    with pytest.raises(RefusalError, match="datasets"):
        run.resume()
    policy(run, datasets="any")
    run.resume()
    begin_round(run.coordinator, 1)
    train_site(run.call(SITE), 1)
    assert [path.name for path in ledger_root().glob("*.jsonl")] == ["vesselmnist3d.jsonl"]
