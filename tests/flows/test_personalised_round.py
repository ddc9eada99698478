"""Rounds after which each site has a model of its own."""

import json

import numpy as np
import pytest

import tasks.aggregate
from federated.exchange import kinds
from federated.privacy.accounting import epsilon
from federated.privacy.ledger import Ledger, ledger_root
from federated.run.update_files import read_memory, read_payload
from federated.stages.aggregate import add_payloads
from federated.strategies.resfim.strategy import MASK
from federated.weights.bounded_file import Content
from federated.weights.model_file import load_model, personal_sites
from tests.flows.conftest import kept_at, messages, weights

pytestmark = pytest.mark.usefixtures("plainly", "in_process")

SITES = ("site-00", "site-01", "site-02")
RESFIM = ["strategy.name=resfim", "strategy.rho=0.2", "strategy.refresh=2"]
STRATEGIES = {
    "fedper": [],
    "fedrep": ["strategy.head_epochs=2"],
    "ditto": [],
    "apfl": [],
    "finetune": [],
    "resfim": RESFIM[1:],
}


def models(folder):
    return [load_model(folder.model_path, site).state_dict() for site in SITES]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_site_has_its_own_model_and_resumes_to_it(run, name):
    strategy = [f"strategy.name={name}", *STRATEGIES[name], "selection.keep=last"]
    last = 3 if name == "resfim" else 2  # its third chooses what is a site's own anew
    folder = run(rounds=last, overrides=strategy)
    before = models(folder)
    assert personal_sites(folder.model_path) == list(SITES)
    assert any((before[0][key] != before[1][key]).any() for key in before[0])
    folder.record_path(last).unlink()
    again = run(resume=folder.run_id)
    for one, other in zip(before, models(again), strict=True):
        assert all((one[key] == other[key]).all() for key in one)


def test_resfim_keeps_a_share_of_the_values_and_shares_the_rest(known):
    folder = known(1, *RESFIM)
    masks = [
        read_memory(kept_at(folder, site).latest_memory(1))[MASK].astype(bool) for site in SITES
    ]
    assert all(mask.mean() == pytest.approx(0.2, abs=0.01) for mask in masks)
    assert (masks[0] != masks[1]).any()
    summary = json.loads(folder.summary_path.read_text())
    assert set(summary["sensitive_layers"]) == set(SITES)
    assert (folder.root / "sensitive_layers.png").stat().st_size > 5000
    common = weights(folder)
    for site, mask in zip(SITES, masks, strict=True):
        model = load_model(folder.model_path, site)
        own = np.concatenate([v.numpy().ravel() for v in model.state_dict().values()])
        np.testing.assert_array_equal(own[~mask], common[~mask])
        assert (own[mask] != common[mask]).mean() > 0.5


@pytest.mark.usefixtures("prefect_server")
def test_styles_are_told_once_and_count_as_bytes(run):
    folder = run(rounds=2, overrides=RESFIM)
    sizes = [path.stat().st_size for path in messages(folder, "style")]
    assert len(sizes) == len(SITES)
    assert all(folder.style_path(site).is_file() for site in SITES)
    records = folder.records()
    ups, downs = ([record["bytes"][way] for record in records] for way in ("up", "down"))
    assert ups[0] == ups[1] + sum(sizes)
    assert downs[0] - downs[1] >= 2 * sum(sizes)
    assert records[0]["seconds"]["style"] > 0 == records[1]["seconds"]["style"]


@pytest.mark.parametrize(
    ("protection", "tolerance"),
    [
        (["compression.bits=16", "protection.name=secagg_plus"], 1e-3),
        (["compression.bits=12", "protection.name=packed_bfv"], 1e-2),
        (["protection.name=ckks"], 1e-3),
    ],
)
def test_under_a_protection_the_same_means_come_of_sums_alone(run, known, protection, tolerance):
    plain = known(1, *RESFIM)
    folder = run(rounds=1, overrides=[*RESFIM, *protection, "runner.name=processes"])
    moved = np.abs(weights(folder) - weights(plain))
    assert np.quantile(moved, 0.99) < tolerance


@pytest.mark.parametrize("protection", ["plain", "secagg_plus"])
def test_a_masked_payload_does_not_show_the_mask_and_a_plain_one_does(run, monkeypatch, protection):
    """Under SecAgg+ the words that count a site's values are alike inside its mask and outside."""
    seen = {}

    def remember(coordinator, topic, sites, masks, length):
        receive = coordinator.mailbox.receive
        message = receive(topic, kinds.PAYLOAD, "site-00", 2**28)
        payload = read_payload(Content(message.body, "of site-00"))
        word = len(payload.body) // payload.length
        seen["words"] = payload.body.view(f"<u{word}").astype(np.float64)
        return add_payloads(coordinator, topic, sites, masks, length)

    monkeypatch.setattr(tasks.aggregate, "add_payloads", remember)
    protected = [f"protection.name={protection}", "runner.name=processes"]
    folder = run(rounds=1, overrides=[*RESFIM, "compression.bits=16", *protected])
    mask = read_memory(kept_at(folder, "site-00").latest_memory(1))[MASK].astype(bool)
    counts = seen["words"][len(mask) :]
    assert len(counts) == len(mask)
    apart = abs(counts[mask].mean() - counts[~mask].mean())
    chance = counts.std() / np.sqrt(mask.sum())
    assert (apart < 4 * chance) == (protection == "secagg_plus")


def test_a_noised_style_stands_in_the_ledger(run):
    noise = ["strategy.style_noise.clip=1000", "strategy.style_noise.noise_multiplier=4"]
    folder = run(rounds=1, overrides=[*RESFIM, *noise])
    (path,) = ledger_root().glob("*.jsonl")
    entry, update = (e for e in Ledger(path).spendings() if e.site == "site-00" and e.trains)
    assert update.mechanism == "none"
    assert (entry.unit, entry.noise_multiplier, entry.clip) == ("record", 4.0, 1000.0)
    assert (entry.run, entry.round_number) == (folder.run_id, 0)
    assert epsilon([entry.release], 1e-5, "rdp") < 2
    silent = run(rounds=1, overrides=RESFIM)
    style, _ = (
        e for e in Ledger(path).spendings(silent.run_id) if e.site == "site-00" and e.trains
    )
    assert (style.mechanism, style.round_number) == ("none", 0)
    one, other = (read_memory(f.style_path("site-00"))["style"] for f in (folder, silent))
    assert one.shape == other.shape
    assert (one >= 0).all()
    assert (one != other).all()
    summary = json.loads(folder.summary_path.read_text())
    assert summary["privacy"]["epsilon"] is None  # the updates are not private
