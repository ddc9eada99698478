import pytest
import torch
from opacus.validators import ModuleValidator

from models.unet import UNet, enlarged


def network(dims=3, norm="group", deep_supervision=False, channels=1, classes=3, width=8):
    return UNet(channels, classes, dims, norm, width, deep_supervision)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["group", "instance"])
def test_logits_have_the_shape_of_the_images_and_dp_sgd_can_train_it(dims, norm):
    model = network(dims, norm, channels=4)
    shape = (16, 24, 8)[:dims]
    assert model(torch.zeros(2, 4, *shape)).shape == (2, 3, *shape)
    assert not ModuleValidator.validate(model)


def test_deep_supervision_reads_three_levels_while_training_and_one_after():
    model = network(2, deep_supervision=True)
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    trained = model(images)
    assert trained.shape == (2, 3, 3, 16, 16)
    trained[:, 2].sum().backward()
    assert model.head[2].weight.grad.any()
    assert model.head[0].weight.grad is None or not model.head[0].weight.grad.any()
    assert torch.equal(model.eval()(images), trained[:, 0])


@pytest.mark.parametrize("spatial", [(6, 5), (4, 3, 2)])
@pytest.mark.parametrize("times", [2, 4])
def test_a_coarse_level_is_enlarged_as_torch_does(spatial, times):
    images = torch.rand(2, 3, *spatial, generator=torch.Generator().manual_seed(0))
    size = [times * side for side in spatial]
    mode = {2: "bilinear", 3: "trilinear"}[len(spatial)]
    expected = torch.nn.functional.interpolate(images, size=size, mode=mode)
    torch.testing.assert_close(enlarged(images, size), expected)


def test_what_one_case_gives_does_not_depend_on_the_others():
    model = network(2).train()
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def test_no_tensor_is_sent_twice():
    state = network().state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


@pytest.mark.parametrize("width", [0, 4, 12])
def test_a_width_that_groupnorm_cannot_take_is_a_mistake(width):
    with pytest.raises(ValueError, match="multiple of 8"):
        network(width=width)
