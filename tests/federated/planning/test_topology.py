"""How often a U-Net halves each axis of a patch, and what a training step keeps of it."""

import pytest
import torch

from federated.planning.topology import plan_topology
from models.nnunet import NNUNet


def test_an_isotropic_patch_is_halved_alike_until_four_voxels_are_left():
    topology, patch = plan_topology((40, 56, 40), (1, 1, 1))
    assert topology.strides == ((1, 1, 1), *[(2, 2, 2)] * 3)
    assert topology.features == (32, 64, 128, 256)
    assert patch == (40, 56, 40)


def test_far_slices_are_left_alone_until_the_others_are_as_long():
    topology, _ = plan_topology((256, 256, 16), (0.5, 0.5, 3))
    assert topology.kernels[:4] == ((3, 3, 1), (3, 3, 1), (3, 3, 3), (3, 3, 3))
    assert topology.strides[:4] == ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 2))
    assert topology.kernels[-1] == (3, 3, 3)
    assert topology.divisors == (64, 64, 4)


def test_a_patch_is_padded_to_what_can_be_divided():
    topology, patch = plan_topology((35, 50, 36), (1, 1, 1))
    assert patch == (40, 56, 40)
    assert all(side % divisor == 0 for side, divisor in zip(patch, topology.divisors, strict=True))


def test_features_are_no_wider_than_a_gpu_takes():
    topology, _ = plan_topology((256, 256, 256), (1, 1, 1))
    assert max(topology.features) == 320
    flat, _ = plan_topology((2048, 2048), (1, 1))
    assert max(flat.features) == 512


@pytest.mark.parametrize(
    ("patch", "spacing"), [((40, 56, 40), (1, 1, 1)), ((64, 64, 16), (1, 1, 3)), ((96, 80), (1, 1))]
)
def test_what_a_step_keeps_is_estimated_to_a_tenth(patch, spacing):
    topology, patch = plan_topology(patch, spacing, width=8)
    levels = list(zip(topology.features, topology.kernels, topology.strides, strict=True))
    dims = len(patch)
    model = NNUNet(1, 3, dims, "instance", levels, 2, False).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage()
        if place.data_ptr() not in weights:
            kept[place.data_ptr()] = place.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = model(torch.zeros(2, 1, *patch))
    del result
    assert topology.memory(patch, 3, 2) == pytest.approx(sum(kept.values()), rel=0.1)
