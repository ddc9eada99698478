import pytest
import torch

from models import MODELS, build_model, is_head


def test_the_small_net_has_about_181_000_parameters():
    model = build_model("small_cnn", channels=1, classes=2, dims=3, norm="group", seed=0)
    assert sum(p.numel() for p in model.parameters()) == 180_674


def test_resnet_18_has_about_33_million_parameters():
    model = build_model("resnet3d", channels=1, classes=2, dims=3, norm="group", seed=0)
    assert 33.0e6 < sum(p.numel() for p in model.parameters()) < 33.3e6


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("norm", ["group", "batch", "instance"])
@pytest.mark.parametrize("side", [28, 64])
def test_every_network_takes_both_sizes_with_every_norm(name, norm, side):
    if name == "resnet3d" and side == 64 and norm != "group":
        pytest.skip("seconds each, and the size does not touch the norm")
    model = build_model(name, channels=1, classes=3, dims=3, norm=norm, seed=0).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 1, side, side, side)).shape == (1, 3)


def test_the_small_net_takes_2d_images():
    model = build_model("small_cnn", channels=3, classes=8, dims=2, norm="group", seed=0)
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 8)


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
    with pytest.raises(ValueError, match="unknown model 'vgg'; known: small_cnn, resnet3d"):
        build_model("vgg", channels=1, classes=2, dims=3, norm="group", seed=0)
    with pytest.raises(ValueError, match="choose small_cnn"):
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


def test_only_the_classifier_is_the_head():
    model = build_model("resnet3d", channels=1, classes=3, dims=3, norm="group", seed=0)
    heads = [name for name in model.state_dict() if is_head(name)]
    assert heads == ["head.weight", "head.bias"]
