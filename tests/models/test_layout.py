from copy import deepcopy

import pytest
import torch
from torch import nn

from models.layout import LAYOUTS, in_channels_last
from tests.networks import CLASSIFIERS, build_model

FLAT = ("resnet3d",)
NETWORKS = [
    *((name, dims) for name in CLASSIFIERS for dims in (2, 3) if dims == 3 or name not in FLAT),
    ("unet", 2),
    ("unet", 3),
]


def orders(model, images):
    """Of each convolution of images whether its features are in channels last.

    Not of one with a kernel of 1 alone, which torch may compute as a product of matrices.
    """
    found = []
    hooks = [
        each.register_forward_hook(lambda _, __, out: found.append(last(out)))
        for each in model.modules()
        if isinstance(each, nn.Conv2d | nn.Conv3d) and max(each.kernel_size) > 1
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return found


def last(features):
    """Whether features are in channels last; of a single voxel or channel that cannot be told."""
    if features.shape[1] == 1 or features[0, 0].numel() == 1:
        return True
    return features.is_contiguous(memory_format=LAYOUTS[features.ndim])


def gradients(model, images):
    model.zero_grad()
    model(images).square().mean().backward()
    return {name: each.grad.clone() for name, each in model.named_parameters()}


def images_of(channels, dims, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    sides = [{2: 16, 3: 8}[dims]] * dims
    return torch.rand((2, channels, *sides), generator=generator, dtype=dtype)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "dims"), NETWORKS)
def test_features_of_each_convolution_are_in_channels_last(name, dims, channels):
    model = in_channels_last(build_model(name, channels=channels, classes=2, dims=dims))
    told = orders(model, images_of(channels, dims))
    assert told
    assert all(told), told


@pytest.mark.parametrize(("name", "dims"), NETWORKS)
def test_what_comes_of_a_network_is_the_same(name, dims):
    plain = build_model(name, channels=1, classes=2, dims=dims).double()
    model = in_channels_last(deepcopy(plain))
    images = images_of(1, dims, torch.float64)
    torch.testing.assert_close(model(images), plain(images))
    torch.testing.assert_close(gradients(model, images), gradients(plain, images))


def test_what_is_copied_and_what_is_loaded_stays_in_channels_last():
    model = in_channels_last(build_model("small_cnn", channels=1, classes=2, dims=3))
    copied = deepcopy(model)
    copied.load_state_dict(build_model("small_cnn", channels=1, classes=2, dims=3).state_dict())
    optimizer = torch.optim.AdamW(copied.parameters())
    images = images_of(1, 3)
    gradients(copied, images)
    optimizer.step()
    assert all(orders(copied, images))


def test_what_weights_are_is_not_changed():
    model = build_model("small_cnn", channels=1, classes=2, dims=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after = in_channels_last(model).state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert [tuple(value.shape) for value in after.values()] == [
        tuple(value.shape) for value in before.values()
    ]
