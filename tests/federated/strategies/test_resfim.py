"""pFL-ResFIM: Fisher information, masks, and the mean over the sites for which a value holds."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.learning.segmentation_loss import dice_ce
from federated.strategies import ResFIM
from federated.strategies.base import OWN, Participation, Server
from federated.strategies.resfim.fisher import CASES_AT_ONCE, add_fisher, zeros
from federated.strategies.resfim.spectral_style import style_of
from federated.strategies.resfim.strategy import MASK, SensitivityRule
from federated.training.loop import place
from federated.training.rule import LocalData, LocalWork
from tests.conftest import PROJECT
from tests.devices import DEVICES
from tests.federated.conftest import clear_of_kinks, site_start
from tests.federated.strategies.test_spectral_style import images
from tests.federated.strategies.test_strategies import f32
from tests.networks import build_model


def loss(logits, targets, reduction):
    losses = dice_ce(logits, targets)
    return losses.mean() if reduction == "mean" else losses


def network(dims=2, norm="instance", **settings):
    return build_model(
        "unet", channels=1, classes=2, dims=dims, norm=norm, seed=0, width=8, **settings
    )


@pytest.mark.numerical
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("device", DEVICES)
def test_the_diagonal_is_the_mean_of_squared_gradients_of_single_cases(
    dims, deep_supervision, device
):
    # A single voxel at the bottom of the smaller one is all zero when it is normalised by itself.
    side, norm = (16, "instance") if dims == 2 else (8, "group")
    model = network(dims, norm, deep_supervision=deep_supervision).train()
    cases = 2 * CASES_AT_ONCE + 1  # the last part is smaller
    drawn = torch.randn((60, 1) + (side,) * dims, generator=torch.Generator().manual_seed(0))
    inputs = drawn[clear_of_kinks(model, drawn)][:cases]
    assert len(inputs) == cases
    targets = (inputs[:, 0] > 0.5).long()
    exact = copy.deepcopy(model).double()
    model = place(model, torch.device(device))
    on_device = inputs.to(device), targets.to(device)
    diagonal = zeros(model)
    add_fisher(diagonal, model, *on_device, loss)
    expected = {name: torch.zeros_like(value) for name, value in exact.named_parameters()}
    for case in range(cases):
        exact.zero_grad()
        loss(exact(inputs[[case]].double()), targets[[case]], "mean").backward()
        for name, parameter in exact.named_parameters():
            expected[name] += parameter.grad**2 / cases
    largest = max(float(value.max()) for value in expected.values())
    for name, value in expected.items():
        assert float((diagonal[name].cpu() - value).abs().max()) <= 3e-5 * largest, name
    add_fisher(diagonal, model, *on_device, loss, factor=-1.0)
    assert all(float(value.abs().max()) <= 1e-6 * largest for value in diagonal.values())


class Scaled(nn.Module):
    """Logits of ``bright`` times an image's mean and ``shape`` times what is left of it."""

    def __init__(self):
        super().__init__()
        self.bright, self.shape = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    def forward(self, x):
        mean = x.mean(dim=(1, 2, 3))
        rest = (x - mean[:, None, None, None]).flatten(1).square().mean(dim=1)
        return torch.stack(
            [(self.bright * mean[:, None]).sum(1), (self.shape * rest[:, None]).sum(1)], 1
        )


def data_of(own, others, count=4):
    return LocalData(
        count,
        4 * count,
        lambda indices: (own[indices], indices % 2),
        lambda logits, targets, reduction: nn.functional.cross_entropy(
            logits, targets, reduction=reduction
        ),
        torch.Generator().manual_seed(0),
        lambda: [style.numpy() for style in style_of(others, 0.05)],
    )


def test_what_depends_on_brightness_is_sensitive_where_sites_differ_in_brightness():
    """The other site's images are brighter and else the same."""
    model = Scaled()
    own = images((32, 32), 4)
    data = data_of(own, own + 3.0)
    difference = ResFIM(rho=0.5, fisher_cases=4)._difference(model, data)
    assert float(difference["bright"].abs().max()) > 5 * float(difference["shape"].abs().max())


def test_the_mask_is_the_share_of_parameters_and_leaves_statistics():
    model = network().train()
    start = site_start(model, name="a")
    inputs = images((32, 32), 4)
    data = LocalData(
        4,
        8,
        lambda indices: (inputs[indices], (inputs[indices, 0] > 0.5).long()),
        loss,
        torch.Generator().manual_seed(0),
        lambda: [style_of(2 * inputs + 1, 0.05)[0].numpy()],
    )
    for select in ("residual", "fisher", "random"):
        strategy = ResFIM(rho=0.2, fisher_cases=2, select=select)
        mask = strategy.find_mask(start, model, data)
        assert mask.sum() == round(0.2 * sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize(
    ("epoch", "cases"), [(200, 8), (32, 8), (31, 6), (28, 6), (16, 4), (8, 2), (3, 2)]
)
def test_a_mask_looks_at_a_quarter_of_an_epoch_in_pairs(epoch, cases):
    taken = []

    def take(indices):
        taken.append(len(indices))
        return images((8, 8), len(indices)), indices % 2

    ResFIM()._difference(
        Scaled(),
        replace(data_of(images((8, 8), 1), images((8, 8), 1)), count=200, epoch=epoch, take=take),
    )
    assert taken == [cases]


@pytest.mark.parametrize(("warmup", "refresh", "due"), [(1, 5, [1, 6, 11]), (3, 4, [3, 7, 11])])
def test_masks_are_made_after_the_warm_up_and_refreshed(warmup, refresh, due):
    strategy = ResFIM(warmup=warmup, refresh=refresh)
    assert [number for number in range(1, 12) if strategy.is_due(number)] == due


def linear(*values):
    model = nn.Linear(len(values), 1, bias=False)
    model.weight.data[:] = torch.tensor(values)
    return model


def finish(strategy, ended, mask=None, memory=None):
    start = site_start(linear(1.0, 1.0, 1.0), memory=memory or {})
    rule = SensitivityRule(strategy, start)
    rule.mask = None if mask is None else np.array(mask)
    update = f32(*ended) - start.weights
    sent, _ = strategy.site_update(update, rule, LocalWork(1), start)
    return sent, strategy.personal_state([f32(*ended)], [rule], start)


class TestRound:
    def test_a_value_is_averaged_over_the_sites_for_which_it_is_invariant(self):
        strategy = ResFIM()
        one, kept = finish(strategy, [2, 2, 2], mask=[False, True, True])
        two, _ = finish(strategy, [5, 5, 5], mask=[False, False, True])
        weights = {"a": 0.25, "b": 0.75}
        mean = np.float32(0.25) * one + np.float32(0.75) * two
        who = Participation(weights, {site: LocalWork(1) for site in weights})
        after = strategy.server_step(Server(f32(1, 1, 1)), mean, who).weights
        assert after == pytest.approx([0.25 * 2 + 0.75 * 5, 5, 1])
        layout = site_start(linear(1.0, 1.0, 1.0)).layout
        assert strategy.personal_weights(after, layout, kept) == pytest.approx([4.25, 2, 2])

    def test_without_a_mask_it_is_fedavg(self):
        strategy = ResFIM(warmup=3)
        sent, kept = finish(strategy, [2, 3, 4])
        assert sent == pytest.approx([1, 2, 3, 1, 1, 1])
        assert kept == {}

    def test_a_mask_holds_until_the_next_one(self):
        memory = {MASK: np.array([1, 0, 0], np.uint8), OWN: f32(9)}
        sent, kept = finish(ResFIM(), [8, 3, 4], memory=memory)
        assert sent == pytest.approx([0, 2, 3, 0, 1, 1])
        assert kept[OWN] == pytest.approx([8])
        released, kept = finish(ResFIM(), [8, 3, 4], mask=[False] * 3, memory=memory)
        # From the global weights, as every site's values are.
        assert released == pytest.approx([7, 2, 3, 1, 1, 1])
        assert kept == {}

    def test_rounding_of_the_counts_takes_no_value_with_it(self):
        strategy = ResFIM()
        who = Participation({"a": 0.5, "b": 0.5}, {s: LocalWork(1) for s in "ab"})
        mean = f32(0.0, 3.0, 0.01, 1.01)
        after = strategy.server_step(Server(f32(1, 1)), mean, who).weights
        assert after == pytest.approx([1, 1 + 3 / 1.01])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["sites.count=1"], "compares styles of sites"),
        (["model.norm=batch"], "needs gradients of single cases"),
        (["compression.name=shared_mask", "compression.density=0.1"], "have to arrive together"),
        (["strategy.rho=1"], "strategy.rho"),
        (["strategy.beta=0.5"], "strategy.beta"),
    ],
)
def test_what_does_not_go_together_is_refused(items, said):
    with pytest.raises(ConsiliumError, match=said):
        load_experiment("demo", ["strategy.name=resfim", *items], PROJECT / "params.yaml")
