"""nnU-Net's changes of training images: each case's own draws alone decide what becomes of it."""

import numpy as np
import pytest
import torch

from federated.data.augmentation import augment_pair
from federated.data.nnunet_augmentation import nnunet_changes


def batch(shape, cases=4):
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(cases, 1, *shape, generator=generator)
    return images, (images[:, 0] > 0).to(torch.uint8)


def numpy_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002


@pytest.mark.parametrize("shape", [(16, 24), (8, 16, 12)])
def test_the_same_draws_give_the_same_images_whatever_else_was_drawn(shape):
    images, masks = batch(shape)
    once = nnunet_changes(images, masks, torch.Generator().manual_seed(1))
    torch.rand(7)
    np.random.seed(3)  # noqa: NPY002 - what some library may do
    state = torch.get_rng_state(), numpy_state()
    again = nnunet_changes(images, masks, torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == numpy_state()
    assert once[1].dtype == torch.int64
    assert set(once[1].unique().tolist()) <= {0, 1}


def test_with_a_generator_for_each_case_no_case_has_a_part_in_another_s_draws():
    images, masks = batch((12, 12, 12))
    draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
    together, _ = augment_pair(images, masks, "nnunet", (0,), draws)
    alone, _ = augment_pair(
        images[2:3], masks[2:3], "nnunet", (0,), [torch.Generator().manual_seed(2)]
    )
    assert torch.equal(together[2:3], alone)


def test_most_cases_come_out_changed_and_differently():
    images, masks = batch((12, 12, 12), cases=1)
    drawn = [nnunet_changes(images, masks, torch.Generator().manual_seed(s))[0] for s in range(20)]
    same = sum(torch.equal(each, images) for each in drawn)
    # None of nine changes is made with a probability of 0.21.
    assert 0 < same < 12
    assert len({each.sum().item() for each in drawn}) == 20 - same + 1


def test_no_case_is_no_case():
    images, masks = batch((8, 8, 8), cases=0)
    assert nnunet_changes(images, masks, torch.Generator())[0].shape == (0, 1, 8, 8, 8)
