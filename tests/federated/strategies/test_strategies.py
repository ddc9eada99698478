"""Each strategy against a small problem solved by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from federated.rounds.local_training import finished, run_passes
from federated.strategies import (
    STRATEGIES,
    Central,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBN,
    FedNova,
    FedProx,
    FedYogi,
    Local,
    Scaffold,
)
from federated.strategies.base import Participation
from federated.strategies.fednova import accumulated
from federated.training.loop import LocalResult, take_all
from federated.training.rule import LocalWork
from federated.update import Layout
from tests.federated.conftest import site_start
from tests.networks import build_model


def f32(*values):
    return np.array(values, np.float32)


def one_weight(value):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, float(value))
    return model


def descend(strategy, start, target, steps, lr, curvature=1.0, broadcast=None, memory=None, **site):
    """``steps`` of gradient descent on curvature·(w − target)² / 2 at one site, in each pass.

    Returns what the site sends and what it keeps.
    """
    model = one_weight(start)
    begun = site_start(model, broadcast=broadcast or {}, memory=memory or {}, **site)

    def train_pass(_, rule, number):
        optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            (curvature * (model.weight - target) ** 2 / 2).sum().backward()
            rule.adjust_gradients(model.named_parameters())
            optimizer.step()
        yield from ()  # none of them is left to others
        return LocalResult(None, steps)

    passes = run_passes(strategy, begun, model, train_pass, lambda rule: None)
    _, ended, rules = take_all(passes)
    return finished(strategy, begun, ended, rules, LocalWork(steps))


# Two sites with different optima, curvatures, weights and steps.
SITES = {
    "a": {"target": 3.0, "curvature": 1.0},
    "b": {"target": -1.0, "curvature": 2.0},
}
WEIGHTS = {"a": 0.25, "b": 0.75}


def federate(strategy, rounds, lr, steps):
    """Rounds of full participation on the two sites; returns the weight after each."""
    server = strategy.open_server(f32(1.0))
    memories = {site: {} for site in SITES}
    path = []
    for _ in range(rounds):
        mean = np.zeros(len(strategy.sent_sizes(1.0)), np.float32)
        for site, problem in SITES.items():
            sent, memories[site] = descend(
                strategy,
                float(server.weights[0]),
                steps=steps[site],
                lr=lr,
                broadcast=server.broadcast,
                memory=memories[site],
                **problem,
            )
            mean += WEIGHTS[site] * sent
        work = {site: LocalWork(steps[site]) for site in SITES}
        server = strategy.server_step(server, mean, Participation(WEIGHTS, work))
        path.append(float(server.weights[0]))
    return path


# Σ p_k c_k (w − t_k) = 0 at (0.25·3 − 0.75·2) / (0.25 + 1.5)
OPTIMUM = (0.25 * 1.0 * 3.0 + 0.75 * 2.0 * -1.0) / (0.25 * 1.0 + 0.75 * 2.0)


def centralised(rounds, lr):
    w, path = 1.0, []
    for _ in range(rounds):
        w -= lr * sum(WEIGHTS[s] * p["curvature"] * (w - p["target"]) for s, p in SITES.items())
        path.append(w)
    return path


def test_a_fedavg_site_goes_to_its_own_optimum():
    sent, kept = descend(FedAvg(), 1.0, 3.0, steps=400, lr=0.05)
    assert sent == pytest.approx([2.0], abs=1e-5)
    assert kept == {}


def test_fedavg_ends_between_the_sites_optima_but_not_at_the_common_one():
    drifted = federate(FedAvg(), 60, 0.1, {"a": 20, "b": 20})[-1]
    assert abs(drifted - OPTIMUM) > 0.2


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
def test_fedprox_stops_where_the_proximal_term_balances_the_loss(mu):
    sent, _ = descend(FedProx(mu=mu), 1.0, 3.0, steps=400, lr=0.05)
    assert sent == pytest.approx([(3 + mu) / (1 + mu) - 1], abs=1e-5)


def test_fedprox_with_a_huge_mu_stays_at_the_global_weights():
    sent, _ = descend(FedProx(mu=1e6), 1.0, 3.0, steps=400, lr=1e-7)
    assert sent == pytest.approx([0.0], abs=1e-5)


def test_fedprox_with_mu_zero_is_fedavg():
    one, _ = descend(FedProx(mu=0.0), 1.0, 3.0, steps=7, lr=0.05)
    other, _ = descend(FedAvg(), 1.0, 3.0, steps=7, lr=0.05)
    assert one == other


def test_scaffold_with_one_local_step_is_centralised_gradient_descent():
    ours = federate(Scaffold(), 12, 0.1, {"a": 1, "b": 1})
    assert ours == pytest.approx(centralised(12, 0.1), abs=1e-6)


def test_scaffold_reaches_the_common_optimum_where_fedavg_drifts():
    assert federate(Scaffold(), 200, 0.02, {"a": 10, "b": 10})[-1] == pytest.approx(
        OPTIMUM, abs=1e-3
    )


def test_scaffold_keeps_the_servers_variate_the_mean_of_the_sites():
    strategy = Scaffold()
    server = strategy.open_server(f32(1.0))
    controls = {}
    for site, problem in SITES.items():
        sent, kept = descend(strategy, 1.0, steps=5, lr=0.05, broadcast=server.broadcast, **problem)
        controls[site] = (sent, kept["control"])
    mean = sum(WEIGHTS[site] * sent for site, (sent, _) in controls.items())
    after = strategy.server_step(server, mean, Participation(WEIGHTS, {}))
    expected = sum(WEIGHTS[site] * control for site, (_, control) in controls.items())
    assert after.broadcast["control"] == pytest.approx(expected)


def test_scaffold_with_half_of_the_cases_moves_the_servers_variate_half_as_far():
    strategy = Scaffold()
    server = strategy.open_server(f32(1.0))
    after = strategy.server_step(server, f32(0.5, 4.0), Participation({"a": 0.25}, {}, share=0.5))
    assert after.weights.tolist() == [1.5]
    assert after.broadcast["control"].tolist() == [2.0]


def test_scaffolds_control_variate_is_option_ii_for_plain_sgd():
    sent, kept = descend(
        Scaffold(),
        1.0,
        3.0,
        steps=4,
        lr=0.1,
        broadcast={"control": f32(0.3)},
        memory={"control": f32(-0.2)},
    )
    update, change = sent
    option_two = -0.2 - 0.3 + -update / (4 * 0.1)
    assert kept["control"] == pytest.approx([option_two], abs=1e-6)
    assert change == pytest.approx(option_two + 0.2, abs=1e-6)


def test_fedadam_follows_algorithm_2_by_hand():
    strategy = FedAdam(server_lr=0.1, beta1=0.5, beta2=0.75, tau=0.01)
    who = Participation({"a": 1.0}, {})
    server = strategy.server_step(strategy.open_server(f32(1.0)), f32(0.2), who)
    m, v = 0.5 * 0.2, 0.75 * 0.01**2 + 0.25 * 0.2**2
    first = 1.0 + 0.1 * m / (v**0.5 + 0.01)
    assert server.weights == pytest.approx([first])
    server = strategy.server_step(server, f32(-0.1), who)
    m, v = 0.5 * m - 0.5 * 0.1, 0.75 * v + 0.25 * 0.1**2
    assert server.weights == pytest.approx([first + 0.1 * m / (v**0.5 + 0.01)])


def test_fedavgm_adds_what_is_left_of_earlier_updates():
    strategy = FedAvgM(momentum=0.5, server_lr=0.1)
    who = Participation({"a": 1.0}, {})
    server = strategy.server_step(strategy.open_server(f32(1.0)), f32(0.2), who)
    assert server.weights == pytest.approx([1.0 + 0.1 * 0.2])
    server = strategy.server_step(server, f32(-0.4), who)
    assert server.weights == pytest.approx([1.02 + 0.1 * (0.5 * 0.2 - 0.4)])


def test_fedavgm_without_momentum_is_fedavg():
    steps = {"a": 5, "b": 2}
    assert federate(FedAvgM(momentum=0), 8, 0.05, steps) == pytest.approx(
        federate(FedAvg(), 8, 0.05, steps), abs=1e-6
    )


def test_fedyogi_follows_algorithm_2_by_hand():
    strategy = FedYogi(server_lr=0.1, beta1=0.5, beta2=0.75, tau=0.01)
    who = Participation({"a": 1.0}, {})
    server = strategy.server_step(strategy.open_server(f32(1.0)), f32(0.2), who)
    m, v = 0.5 * 0.2, 0.01**2 + 0.25 * 0.2**2  # v < Δ²: it grows
    first = 1.0 + 0.1 * m / (v**0.5 + 0.01)
    assert server.weights == pytest.approx([first])
    server = strategy.server_step(server, f32(0.001), who)
    m, v = 0.5 * m + 0.5 * 0.001, v - 0.25 * 0.001**2  # v > Δ²: it shrinks by Δ², not by a share
    assert server.weights == pytest.approx([first + 0.1 * m / (v**0.5 + 0.01)])


def test_fednova_with_equal_steps_is_fedavg():
    steps = {"a": 5, "b": 5}
    assert federate(FedNova(), 8, 0.05, steps) == pytest.approx(
        federate(FedAvg(), 8, 0.05, steps), abs=1e-6
    )


def test_fednova_finds_the_common_optimum_where_more_steps_pull_fedavg_away():
    steps = {"a": 8, "b": 1}
    pulled = federate(FedAvg(), 400, 0.005, steps)[-1]
    assert abs(pulled - OPTIMUM) > 0.5
    assert federate(FedNova(), 400, 0.005, steps)[-1] == pytest.approx(OPTIMUM, abs=0.03)


def test_fednovas_normaliser_is_the_sum_of_momentums_coefficients():
    coefficients = [(1 - 0.9 ** (tau + 1)) / (1 - 0.9) for tau in range(7)]
    assert accumulated(LocalWork(7, momentum=0.9)) == pytest.approx(sum(coefficients))
    assert accumulated(LocalWork(7)) == 7


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_fedbn_keeps_the_normalisation_layers_and_nothing_else(norm):
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm=norm, seed=0)
    personal = FedBN().personal(model)
    kept = {name.rsplit(".", 1)[0] for name in personal}
    norms = {n for n, m in model.named_modules() if type(m).__name__.endswith(("Norm", "Norm3d"))}
    assert kept == norms
    assert len(norms) == 3
    assert ("features.2.running_mean" in personal) == (norm == "batch")


def test_local_shares_nothing():
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    layout = Layout.of(model, Local().personal(model))
    assert not layout.shared.any()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_says_its_name_and_cites_its_source(strategy):
    module = __import__(strategy.__module__, fromlist=["x"])
    assert strategy().name in module.__name__.split(".")
    cited = "et al. 20" in module.__doc__ or "arXiv" in module.__doc__
    assert cited or strategy in (Local, Central)


@pytest.mark.parametrize("strategy", [each for each in STRATEGIES if each.keeps_nothing])
def test_a_strategy_that_says_so_has_a_site_keep_nothing_between_rounds(strategy):
    assert strategy().personal(one_weight(0)) == frozenset()
    sent, kept = descend(strategy(), 1.0, 0.0, steps=3, lr=0.1)
    assert sent.any()
    assert kept == {}
