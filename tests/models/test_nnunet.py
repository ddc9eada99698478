"""nnU-Net's network is that of the library, with each tensor once and a head of its own."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from models.nnunet import NNUNet
from models.norm import make_norm
from tests.networks import ADAPTER

LEVELS = [(8, (3, 3, 1), (1, 1, 1)), (16, (3, 3, 3), (2, 2, 1)), (32, (3, 3, 3), (2, 2, 2))]


def network(deep_supervision=False, levels=LEVELS):
    torch.manual_seed(0)
    return NNUNet(2, 3, 3, "instance", levels, 2, deep_supervision)


def test_it_computes_what_the_library_s_network_computes():
    torch.manual_seed(0)
    theirs = PlainConvUNet(
        2,
        3,
        [8, 16, 32],
        nn.Conv3d,
        [kernel for _, kernel, _ in LEVELS],
        [stride for _, _, stride in LEVELS],
        2,
        3,
        2,
        conv_bias=True,
        norm_op=lambda width: make_norm("instance", width, 3),
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": 0.01},
    ).eval()
    images = torch.randn(2, 2, 16, 8, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network().eval()(images), theirs(images))


def test_each_tensor_is_in_the_state_once():
    model = network()
    places = [value.data_ptr() for value in model.state_dict().values()]
    assert len(set(places)) == len(places)
    assert sum(value.numel() for value in model.state_dict().values()) == sum(
        value.numel() for value in model.parameters()
    )


def test_all_levels_but_the_two_coarsest_are_read_out_while_training():
    images = torch.zeros(1, 2, 16, 8, 4)
    deep = [*LEVELS, (64, (3, 3, 3), (2, 1, 1))]
    assert network(True, deep)(images).shape == (1, 2, 3, 16, 8, 4)
    assert network(True, deep).eval()(images).shape == (1, 3, 16, 8, 4)
    assert network(True)(images).shape == (1, 3, 16, 8, 4)  # one level is left: the finest


def test_a_network_that_is_not_planned_yet_cannot_be_made():
    unplanned = ADAPTER.validate_python({"name": "nnunet"})
    with pytest.raises(ValueError, match="planned before"):
        unplanned.build(1, 2, 3, seed=0)


def test_levels_of_volumes_are_not_those_of_pictures():
    level = {"features": 8, "kernel": [3, 3, 3], "stride": [1, 1, 1]}
    volumes = ADAPTER.validate_python({"name": "nnunet", "levels": [level, level]})
    with pytest.raises(ValueError, match="2 dimensions"):
        volumes.build(1, 2, 2, seed=0)
