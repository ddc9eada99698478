import pytest
import torch
from opacus.validators import ModuleValidator
from torch import nn

from models import is_head
from tests.networks import CLASSIFIERS, build_model


def test_the_small_net_has_about_181_000_parameters():
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    assert sum(p.numel() for p in model.parameters()) == 180_674


def test_the_shallow_net_has_about_500_parameters_and_starts_uncentred():
    model = build_model("shallow_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    assert sum(p.numel() for p in model.parameters()) == 514
    x = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.centring(x), 20 * x)
    model.centring.mean.copy_(x[0])
    assert not model.centring(x)[0].any()


def test_resnet_18_has_about_33_million_parameters():
    model = build_model("resnet3d", channels=1, classes=2, dims=3, norm="group", seed=0)
    assert 33.0e6 < sum(p.numel() for p in model.parameters()) < 33.3e6


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("norm", ["group", "batch", "instance", "batch_fixed"])
@pytest.mark.parametrize("side", [28, 64])
def test_every_network_takes_both_sizes_with_every_norm(name, norm, side):
    if name != "small_cnn" and side == 64 and norm != "group":
        pytest.skip("seconds each, and the size does not touch the norm")
    model = build_model(name, channels=1, classes=3, dims=3, norm=norm, seed=0).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, side, side, side)).shape == (1, 3)


@pytest.mark.parametrize("name", ["small_cnn", "shallow_cnn", "dp_resnet"])
def test_some_networks_take_2d_images(name):
    model = build_model(name, channels=3, classes=8, dims=2, norm="group", seed=0)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 8)


@pytest.mark.parametrize("dims", [2, 3])
def test_dp_resnet_has_nine_layers_and_nothing_that_mixes_cases_or_pools_by_maximum(dims):
    def network(scale_norm):
        return build_model(
            "dp_resnet",
            channels=3,
            classes=8,
            dims=dims,
            norm="group",
            seed=0,
            scale_norm=scale_norm,
        )

    modules = list(network(False).modules())
    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    assert sum(isinstance(module, kinds) for module in modules) == 9
    pools = (nn.MaxPool2d, nn.MaxPool3d, nn.modules.batchnorm._BatchNorm)
    assert not any(isinstance(module, pools) for module in modules)
    extra = set(network(True).state_dict()) - set(network(False).state_dict())
    assert len(extra) == 4
    sizes = sum(p.numel() for p in network(False).parameters())
    assert 6.5e6 < sizes < 6.7e6 or dims == 3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_opacus_fixer_leaves_nothing_that_mixes_cases(name):
    def network(norm):
        return build_model(name, channels=1, classes=2, dims=3, norm=norm, seed=0)

    kept, replaced = network("batch"), network("batch_fixed")
    assert ModuleValidator.validate(kept)
    assert not ModuleValidator.validate(replaced)
    lost = set(kept.state_dict()) - set(replaced.state_dict())
    assert {key.rsplit(".", 1)[1] for key in lost} == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


def test_weights_depend_on_the_seed_alone():
    def weights(seed):
        model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    torch.manual_seed(5)
    first = weights(0)
    state = torch.get_rng_state()
    assert torch.equal(first, weights(0))
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first, weights(1))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"small_cnn.*shallow_cnn.*resnet3d.*dp_resnet"):
        build_model("vgg", channels=1, classes=2, dims=3, norm="group", seed=0)
    with pytest.raises(ValueError, match="resnet3d takes volumes"):
        build_model("resnet3d", channels=3, classes=2, dims=2, norm="group", seed=0)


@pytest.mark.parametrize("conv", ["3d", "acs", "2.5d"])
@pytest.mark.parametrize("stem", [3, 7])
def test_every_kind_of_convolution_gives_logits_and_gradients(conv, stem):
    model = build_model(
        "resnet3d", channels=1, classes=3, dims=3, norm="group", seed=0, conv=conv, stem=stem
    )
    logits = model(torch.rand(1, 1, 12, 12, 12))
    logits.sum().backward()
    assert logits.shape == (1, 3)
    assert all(p.grad is not None for p in model.parameters())


def test_an_acs_convolution_sees_a_plane_a_third_of_its_channels():
    from models.convolution import ACSConv3d

    conv = ACSConv3d(1, 7, kernel=3, stride=1)
    torch.nn.init.ones_(conv.weight)
    volume = torch.zeros(1, 1, 5, 5, 5)
    volume[0, 0, 2, 2, 2] = 1.0
    out = conv(volume)[0]
    planes = [tuple(len(torch.unique(torch.nonzero(c)[:, axis])) for axis in range(3)) for c in out]
    assert planes == [(1, 3, 3)] * 3 + [(3, 1, 3)] * 2 + [(3, 3, 1)] * 2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_only_the_classifier_is_the_head(name):
    model = build_model(name, channels=1, classes=3, dims=3, norm="group", seed=0)
    heads = [name for name in model.state_dict() if is_head(name)]
    assert heads == ["head.weight", "head.bias"]


def test_a_unet_is_read_out_in_its_head():
    model = build_model("unet", channels=1, classes=3, dims=3, norm="group", seed=0)
    heads = [name for name in model.state_dict() if is_head(name)]
    assert heads == ["head.0.weight", "head.0.bias"]
