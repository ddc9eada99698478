"""Strategies that leave each site a model of its own, against a small problem solved by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.strategies import APFL, Ditto, FedPer, FedRep, FineTune
from federated.strategies.base import OWN, PERSONAL
from federated.update import Layout
from tests.conftest import PROJECT
from tests.federated.conftest import site_start
from tests.federated.strategies.test_strategies import descend, f32
from tests.networks import build_model

# What is left of the way after so many steps is 1e-9.
LONG = {"steps": 400, "lr": 0.05}


def own(strategy, memory, weights=1.0):
    layout = Layout.of(nn.Linear(1, 1, bias=False))
    return strategy.personal_weights(f32(weights), layout, memory)


class TestDitto:
    @pytest.mark.parametrize("lam", [0.0, 0.5, 4.0])
    def test_the_personal_model_is_where_the_pull_balances_the_loss(self, lam):
        sent, kept = descend(Ditto(lam=lam), 1.0, 3.0, **LONG)
        assert sent == pytest.approx([2.0], abs=1e-5)  # the global model is FedAvg's
        assert kept[OWN] == pytest.approx([(3 + lam * 1.0) / (1 + lam)], abs=1e-5)

    def test_it_goes_on_from_the_personal_model(self):
        _, kept = descend(Ditto(lam=0.5), 1.0, 3.0, steps=1, lr=0.1, memory={OWN: f32(2.0)})
        assert kept[OWN] == pytest.approx([2.0 - 0.1 * ((2.0 - 3.0) + 0.5 * (2.0 - 1.0))])

    def test_the_site_uses_the_personal_model(self):
        assert own(Ditto(), {OWN: f32(5.0)}) == [5.0]
        assert own(Ditto(), {}) == [1.0]


class TestAPFL:
    def test_the_mixture_finds_the_sites_optimum_and_its_own_part_follows(self):
        strategy = APFL(alpha=0.5, adapt=False)
        # Its own part moves by α² of a step.
        sent, kept = descend(strategy, 1.0, 3.0, **LONG | {"steps": 1600})
        assert sent == pytest.approx([2.0], abs=1e-5)
        assert kept[OWN] == pytest.approx([5.0], abs=1e-4)  # 0.5 · 5 + 0.5 · 1 = 3
        assert own(strategy, kept) == pytest.approx([3.0], abs=1e-4)
        assert own(strategy, kept, weights=2.0) == pytest.approx([3.5], abs=1e-4)

    def test_alpha_moves_against_its_gradient(self):
        strategy = APFL(alpha=0.5, alpha_lr=0.1)
        memory = {OWN: f32(2.0), "alpha": f32(0.5)}
        _, kept = descend(strategy, 1.0, 3.0, steps=1, lr=0.01, memory=memory)
        # v̄ = 1.5, ∇f = −1.5, v − w = 1: more of v lowers the loss.
        assert kept["alpha"] == pytest.approx([0.5 + 0.1 * 1.5])

    def test_alpha_stays_where_there_is_something_of_v(self):
        memory = {OWN: f32(-50.0), "alpha": f32(0.5)}
        _, kept = descend(APFL(alpha_lr=10), 1.0, 3.0, steps=1, lr=0.01, memory=memory)
        assert kept["alpha"] == pytest.approx([0.05])


@pytest.mark.parametrize("strategy", [FedPer(), FedRep()])
def test_the_head_stays_and_nothing_else(strategy):
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    personal = strategy.personal(model)
    assert personal == {"head.weight", "head.bias"}
    layout = Layout.of(model, personal)
    start = site_start(model)
    ended = [np.arange(layout.size, dtype=np.float32)]
    start = type(start)(layout, start.weights)
    assert strategy.personal_state(ended, [], start)[PERSONAL] == pytest.approx(
        ended[0][~layout.shared]
    )


def test_fedrep_trains_the_head_and_then_the_rest():
    model = build_model("small_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)
    start = site_start(model)
    head, rest = FedRep(head_epochs=3).passes(start)
    assert (head.epochs, rest.epochs, rest.weights) == (3, None, None)
    for one, trained in ((head, True), (rest, False)):
        before = start.layout.flatten(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        model(torch.randn(4, 1, 12, 12)).square().sum().backward()
        one.rule(model).adjust_gradients(model.named_parameters())
        optimizer.step()
        moved = start.layout.split(start.layout.flatten(model) != before)
        assert all(
            part.any() == (name.startswith("head") == trained) for name, part in moved.items()
        )
        model.zero_grad()


class TestFineTune:
    def test_before_the_last_rounds_it_is_fedavg(self):
        sent, kept = descend(FineTune(), 1.0, 3.0, **LONG, round_number=4, rounds=5)
        assert sent == pytest.approx([2.0], abs=1e-5)
        assert kept == {}

    def test_in_them_every_site_trains_alone(self):
        site = {"round_number": 4, "rounds": 5}
        sent, kept = descend(FineTune(tuning_rounds=2), 1.0, 3.0, steps=1, lr=0.5, **site)
        assert sent == [0.0]
        assert kept[OWN] == pytest.approx([2.0])
        again = {"round_number": 5, "rounds": 5, "memory": kept}
        _, kept = descend(FineTune(tuning_rounds=2), 1.0, 3.0, steps=1, lr=0.5, **again)
        assert kept[OWN] == pytest.approx([2.5])

    def test_rounds_have_to_be_left(self):
        items = ["strategy.name=finetune", "strategy.tuning_rounds=3", "rounds=3"]
        with pytest.raises(ConsiliumError, match=r"leaves none of 3 rounds to train together"):
            load_experiment("demo", items, PROJECT / "params.yaml")


@pytest.mark.parametrize("strategy", ["ditto", "apfl", "fedrep", "resfim"])
@pytest.mark.parametrize("privacy", ["dp_sgd", "site_level"])
def test_what_privacy_would_not_account_for_is_refused(strategy, privacy):
    items = [
        *(f"strategy.name={strategy}", f"privacy.name={privacy}", "privacy.clip=1"),
        "privacy.noise_multiplier=1",
    ]
    with pytest.raises(ConsiliumError, match=rf"strategy.name={strategy} trains or looks at"):
        load_experiment("demo", items, PROJECT / "params.yaml")
