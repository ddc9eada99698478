"""What the local loop draws of a segmentation set."""

import pytest
import torch
from cachetools import LRUCache

from federated.data.augmentation import augment_pair
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.segmented_cases import SegmentedCases, ShownCase
from federated.settings.sections import TrainingSettings


def cases_of(name, folder, shape, count=3, kept=2**30):
    family = FAMILIES[name]
    write_phantom(family, folder, count, seed=0, shape=shape)
    shown = [ShownCase(files, None) for files in family.find(folder).cases]
    return SegmentedCases(family, shown, LRUCache(kept, getsizeof=lambda case: case.nbytes))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "shape", "patches", "sizes"),
    [
        ("hippocampus", (20, 30, 20), 1, [2, 1]),
        ("retina", (130, 140), 3, [2, 2, 2, 2, 1]),
        # Smaller than a patch, so it is padded.
        ("retina", (60, 140), 2, [2, 2, 2]),
        ("brain", (40, 100, 100), 1, [2, 1]),
    ],
)
def test_an_epoch_is_a_function_of_the_generator_alone(tmp_path, name, shape, patches, sizes):
    cases = cases_of(name, tmp_path, shape)
    how = TrainingSettings(batch_size=2, patches_per_case=patches)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = list(cases.epoch(how, False, generator()))
    assert torch.equal(before, torch.get_rng_state())
    again = list(cases.epoch(how, False, generator()))
    other = list(cases.epoch(how, False, generator(1)))
    assert [len(images) for images, _ in first] == sizes
    family = cases.family
    for images, masks in first:
        assert images.shape[1:] == (family.channels, *family.shape)
        assert masks.shape[1:] == family.shape
        assert masks.dtype == torch.int64
    pairs = list(zip(first, again, strict=True))
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(first, other, strict=True))


def test_patches_lie_on_every_label_about_equally(tmp_path):
    cases = cases_of("retina", tmp_path, (400, 400), count=1)
    how = TrainingSettings(augment="none")
    centres = [
        int(cases.load_batch(torch.tensor([0]), how, generator(seed))[1][0, 48, 48])
        for seed in range(200)
    ]
    assert 0.35 < sum(centres) / 200 < 0.65


def test_cases_are_prepared_again_where_memory_is_short(tmp_path):
    roomy, short = (
        cases_of("hippocampus", tmp_path, (20, 30, 20), kept=kept) for kept in (2**30, 1000)
    )
    how = TrainingSettings(batch_size=3, augment="none")
    ((images, _),) = roomy.epoch(how, False, generator())
    ((again, _),) = short.epoch(how, False, generator())
    assert torch.equal(images, again)
    assert (len(roomy.kept), len(short.kept)) == (3, 0)


def test_no_case_drawn_is_an_empty_batch(tmp_path):
    cases = cases_of("hippocampus", tmp_path, (20, 30, 20))
    images, masks = cases.load_batch(
        torch.tensor([], dtype=torch.int64), TrainingSettings(), generator()
    )
    assert (images.shape[0], masks.shape[0]) == (0, 0)


@pytest.mark.parametrize("how", ["flips", "torchio", "nnunet"])
@pytest.mark.parametrize("shape", [(16, 16), (12, 12, 12)])
def test_image_and_mask_move_alike(how, shape):
    masks = torch.zeros(4, *shape, dtype=torch.uint8)
    masks[(slice(None), *(slice(2, 7) for _ in shape))] = 1
    images = 10.0 * masks.unsqueeze(1).float()
    moved, labels = augment_pair(images, masks, how, (0,), generator(3))
    assert labels.dtype == torch.int64
    agree = ((moved[:, 0] > 5) == (labels == 1)).float().mean()
    assert agree > 0.97
    assert not torch.equal(labels, masks.long())


def test_only_axes_along_which_a_body_is_symmetric_are_flipped():
    masks = torch.zeros(8, 6, 6, 6, dtype=torch.uint8)
    masks[:, 1, 2, 4] = 1
    seen = {
        tuple(torch.nonzero(mask)[0].tolist())
        for seed in range(5)
        for mask in augment_pair(masks.unsqueeze(1).float(), masks, "flips", (0,), generator(seed))[
            1
        ]
    }
    assert seen == {(1, 2, 4), (4, 2, 4)}
