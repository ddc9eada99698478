import numpy as np
import torch
from torch import nn

from federated.strategies import FedAvg, FedProx
from federated.update import Layout


def descend(strategy, steps=4000, lr=0.05):
    """One weight, loss (w - 3)² / 2, from w = 1; the proximal optimum is (3 + μ) / (1 + μ)."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        ((model.weight - 3.0) ** 2 / 2).sum().backward()
        strategy.add_gradient(model.named_parameters(), anchor)
        optimizer.step()
    return float(model.weight.detach())


def test_fedavg_goes_to_the_sites_own_optimum():
    assert np.isclose(descend(FedAvg()), 3.0)


def test_fedprox_stops_where_the_proximal_term_balances_the_loss():
    for mu in (0.1, 1.0, 4.0):
        assert np.isclose(descend(FedProx(mu=mu)), (3 + mu) / (1 + mu), atol=1e-5)


def test_fedprox_with_a_huge_mu_stays_at_the_global_weights():
    assert np.isclose(descend(FedProx(mu=1e6), lr=1e-7), 1.0, atol=1e-5)


def test_fedprox_with_mu_zero_is_fedavg():
    assert descend(FedProx(mu=0.0), steps=7) == descend(FedAvg(), steps=7)


def test_the_server_adds_the_mean_update():
    weights = np.array([1, 2], np.float32)
    new, state = FedAvg().server_step(weights, np.array([0.5, -1], np.float32), {})
    assert new.tolist() == [1.5, 1.0]
    assert state == {}


def test_fedavg_shares_every_tensor():
    layout = Layout.of(nn.Linear(2, 3))
    assert FedAvg().shared(layout) == ("weight", "bias")
