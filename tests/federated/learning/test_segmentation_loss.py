import pytest
import torch

from federated.learning.segmentation_loss import dice_ce


def case(size=6, classes=3):
    labels = torch.zeros(2, size, size, size, dtype=torch.long)
    labels[0, :3], labels[1, 2:4] = 1, 2
    return labels, torch.nn.functional.one_hot(labels, classes).permute(0, 4, 1, 2, 3).float()


def test_a_perfect_prediction_costs_next_to_nothing():
    labels, truth = case()
    assert dice_ce(40 * truth, labels).shape == (2,)
    # Of a class that is in neither mask, MONAI's smoothing makes the Dice loss 0.
    assert dice_ce(40 * truth, labels).max() < 1e-3


def test_it_is_dice_of_the_foreground_plus_cross_entropy():
    labels, _ = case()
    logits = torch.randn((2, 3, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    found = dice_ce(logits, labels)
    shares = logits.softmax(dim=1)
    dice = []
    for label in (1, 2):
        truth = (labels[0] == label).float()
        both, all_ = (shares[0, label] * truth).sum(), shares[0, label].sum() + truth.sum()
        dice.append(1 - (2 * both + 1e-5) / (all_ + 1e-5))
    entropy = torch.nn.functional.cross_entropy(logits[:1], labels[:1])
    assert float(found[0]) == pytest.approx(float(sum(dice) / 2 + entropy), rel=1e-4)


def test_a_case_does_not_touch_the_loss_of_another():
    labels, _ = case()
    logits = torch.randn((2, 3, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[1] = 0
    assert dice_ce(logits, labels)[0] == dice_ce(changed, labels)[0]


def test_levels_of_deep_supervision_count_half_as_much_each():
    labels, _ = case()
    levels = torch.randn((2, 3, 3, 6, 6, 6), generator=torch.Generator().manual_seed(0))
    one, two, three = (dice_ce(levels[:, level], labels) for level in range(3))
    torch.testing.assert_close(dice_ce(levels, labels), (4 * one + 2 * two + three) / 7)
