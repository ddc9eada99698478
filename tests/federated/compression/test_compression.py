"""What is sent and what stays: nothing is lost, and all sites agree where they have to."""

import numpy as np
import pytest

from federated.compression import NoCompression, SharedMask, TopK
from federated.compression.base import RANGES, RESIDUAL, CompressionContext, largest
from federated.compression.quantize import largest_quantised, next_ranges, quantize, steps_at
from federated.errors import ConsiliumError
from federated.update import ModelUpdate

GROUPS = (100, 40, 60)
LENGTH = sum(GROUPS)
RNG = np.random.default_rng(0)

ALL = [
    NoCompression(),
    NoCompression(bits=4),
    NoCompression(bits=8, scale="global"),
    TopK(density=0.1),
    TopK(density=0.1, ema=0.9),
    TopK(density=0.1, bits=8),
    SharedMask(density=0.1),
    SharedMask(density=0.1, bits=8),
    SharedMask(density=0.05, explore=1.0, bits=2),
]
NAMES = [repr(compression) for compression in ALL]


def rounds(compression, sites, count, groups=GROUPS, seed=0):
    """Rounds of random updates: yields what was sent, what stayed, and the mean."""
    weights = np.full(sites, 1 / sites)
    arrays = compression.open([0.05] * len(groups))
    memories = [{} for _ in range(sites)]
    for number in range(1, count + 1):
        context = CompressionContext(seed, number, groups, arrays)
        total = None
        deltas, compressed = [], []
        for site in range(sites):
            delta = RNG.normal(size=sum(groups), scale=0.01).astype(np.float32)
            update = ModelUpdate(f"site-{site}", number, 5, delta)
            sent, memories[site] = compression.compress(
                update, weights[site], context, memories[site]
            )
            dense = sent.numbers.astype(np.float64)
            if sent.positions is not None:
                dense = np.zeros(sum(groups))
                dense[sent.positions] = sent.numbers
            total = dense if total is None else total + dense
            deltas.append(delta)
            compressed.append(sent)
        mean, arrays = compression.expand(total, 1.0, context)
        yield number, context, deltas, compressed, memories, mean


@pytest.mark.parametrize("compression", ALL, ids=NAMES)
def test_a_compression_that_says_so_has_a_site_keep_nothing(compression):
    *_, (_, _, _, _, memories, _) = rounds(compression, 2, 2)
    assert compression.keeps_nothing == (memories == [{}, {}])


@pytest.mark.parametrize("compression", ALL, ids=NAMES)
def test_error_feedback_loses_nothing(compression):
    """The means of all rounds and what is left at the sites are the mean of all updates."""
    moved, applied = np.zeros(LENGTH), np.zeros(LENGTH)
    for _, _, deltas, _, memories, mean in rounds(compression, 3, 30):
        moved += np.mean(deltas, axis=0)
        applied += mean
        left = np.mean([memory.get(RESIDUAL, np.zeros(LENGTH)) for memory in memories], axis=0)
        np.testing.assert_allclose(applied + left, moved, atol=2e-6)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.333, 1.0])
def test_top_k_is_exact(density):
    vector = RNG.normal(size=LENGTH).astype(np.float32)
    compression = TopK(density=density)
    context = CompressionContext(0, 1, GROUPS, compression.open([0.05] * len(GROUPS)))
    sent, _ = compression.compress(ModelUpdate("a", 1, 5, vector), 1.0, context, {})
    order = np.argsort(-np.abs(vector))[: round(density * LENGTH)]
    np.testing.assert_array_equal(sent.positions, np.sort(order))
    np.testing.assert_array_equal(sent.numbers, vector[np.sort(order)])


def test_medhes_threshold_is_an_exponential_average():
    compression = TopK(density=0.1, ema=0.75)
    memory = {}
    thresholds, nows = [], []
    for number in range(1, 6):
        vector = (RNG.normal(size=LENGTH) * number).astype(np.float32)
        nows.append(np.sort(np.abs(vector))[-20])
        positions, memory = compression.own_positions(vector, memory)
        thresholds.append(float(memory["threshold"][0]))
        np.testing.assert_array_equal(positions, np.flatnonzero(np.abs(vector) >= thresholds[-1]))
    expected = nows[0]
    for now, threshold in zip(nows, thresholds, strict=True):
        expected = 0.75 * expected + 0.25 * now
        assert threshold == pytest.approx(expected, rel=1e-6)


def test_the_shared_mask_is_the_same_at_every_site_and_changes():
    compression = SharedMask(density=0.1)
    masks = []
    for _, context, _, compressed, _, _ in rounds(compression, 4, 6):
        assert {len(sent.numbers) for sent in compressed} == {20}
        assert all(sent.positions is None for sent in compressed)
        masks.append(compression.positions(context))
        copy = CompressionContext(context.seed, context.round_number, GROUPS, dict(context.arrays))
        np.testing.assert_array_equal(compression.positions(copy), masks[-1])
        assert len(set(masks[-1])) == 20
    assert any((masks[0] != mask).any() for mask in masks[1:])


def test_the_mask_follows_what_all_sites_moved():
    """Ten positions move and the others hardly do: after one time round, they are always sent."""
    compression = SharedMask(density=0.1, explore=0.25, ema=0.0)
    arrays = compression.open([0.05] * len(GROUPS))
    memory, strong = {}, np.arange(5, 200, 20)
    for number in range(1, 60):
        context = CompressionContext(3, number, GROUPS, arrays)
        vector = RNG.normal(size=LENGTH, scale=1e-6).astype(np.float32)
        vector[strong] += 1
        sent, memory = compression.compress(
            ModelUpdate("a", number, 5, vector), 1.0, context, memory
        )
        _, arrays = compression.expand(sent.numbers.astype(np.float64), 1.0, context)
        if number > 40:
            assert set(strong) <= set(compression.positions(context))


@pytest.mark.parametrize(("density", "explore"), [(0.05, 0.2), (0.1, 0.01), (0.02, 1.0)])
def test_every_position_is_sent_in_time(density, explore):
    compression = SharedMask(density=density, explore=explore)
    count = round(density * LENGTH)
    turn = -(-LENGTH // int(np.ceil(explore * count)))
    seen = np.zeros(LENGTH, bool)
    for _, context, _, _, _, _ in rounds(compression, 2, turn):
        seen[compression.positions(context)] = True
    assert seen.all()


def test_another_seed_explores_in_another_order():
    masks = [
        SharedMask(density=0.1).positions(
            CompressionContext(seed, 1, GROUPS, SharedMask(density=0.1).open([1]))
        )
        for seed in (0, 1)
    ]
    assert (masks[0] != masks[1]).any()


def test_what_local_training_may_move_is_what_is_sent_where_so_set():
    context = CompressionContext(0, 1, GROUPS, {})
    sent = SharedMask(density=0.1, train="sent")
    np.testing.assert_array_equal(sent.trained(context), sent.positions(context))
    assert SharedMask(density=0.1).trained(context) is None
    assert NoCompression().trained(context) is None


class TestQuantisation:
    @pytest.mark.parametrize("bits", [2, 3, 8, 16])
    def test_quantised_values_are_unbiased_and_within_their_range(self, bits):
        values = RNG.uniform(-1, 1, 50)
        steps = np.full(50, 1 / largest_quantised(bits))
        drawn = np.stack([quantize(values, steps, bits, RNG) for _ in range(4000)])
        assert np.abs(drawn).max() <= largest_quantised(bits)
        error = (drawn * steps).mean(axis=0) - values
        assert np.abs(error).max() < 5 * steps[0] / np.sqrt(4 * 4000) + 1e-12

    def test_each_tensor_has_a_range_of_its_own(self):
        steps = steps_at(np.float32([1, 2, 4]), GROUPS, 8, None) * 127
        np.testing.assert_allclose(steps, np.repeat([1, 2, 4], GROUPS))
        at = steps_at(np.float32([1, 2, 4]), GROUPS, 8, np.array([99, 100, 139, 140])) * 127
        np.testing.assert_allclose(at, [1, 2, 2, 4])

    def test_ranges_follow_the_largest_sum_but_fall_slowly(self):
        positions = np.array([0, 1, 150])
        total = np.array([0.1, -3.0, 0.001])
        ranges = next_ranges(np.float32([1, 2, 4]), GROUPS, total, positions)
        np.testing.assert_allclose(ranges, [6, 2, 2])

    def test_ranges_fall_with_the_learning_rate_as_fast_as_that_does(self):
        total = np.array([0.1, -3.0, 0.001])
        ranges = np.float32([1, 2, 4])
        scaled = next_ranges(ranges, GROUPS, total, np.array([0, 1, 150]), next_scale=0.25)
        np.testing.assert_allclose(scaled, [1.5, 0.5, 0.5])
        # Updates of a quarter from round to round, in three bits.
        errors = {}
        for scale in (1.0, 0.25):
            compression, arrays, memory = NoCompression(bits=3), {}, {}
            arrays = compression.open([4.0])
            for number in range(5):
                context = CompressionContext(0, number, (200,), arrays, next_scale=scale)
                vector = (RNG.uniform(-1, 1, 200) * 0.25**number).astype(np.float32)
                sent, memory = compression.compress(
                    ModelUpdate("a", number, 5, vector), 1.0, context, memory
                )
                _, arrays = compression.expand(sent.numbers.astype(np.float64), 1.0, context)
            errors[scale] = np.abs(memory["residual"]).mean() / 0.25**number
        assert errors[0.25] < 0.5 * errors[1.0]

    def test_a_range_that_is_too_small_grows_until_nothing_is_left_behind(self):
        compression = NoCompression(bits=8)
        arrays = compression.open([1e-4])
        memory = {}
        for number in range(1, 40):
            context = CompressionContext(0, number, (4,), arrays)
            vector = np.float32([1, -1, 0.5, 0])
            sent, memory = compression.compress(
                ModelUpdate("a", number, 5, vector), 1.0, context, memory
            )
            _, arrays = compression.expand(sent.numbers.astype(np.float64), 1.0, context)
        assert np.abs(memory[RESIDUAL]).max() < 0.1
        assert 1 <= arrays[RANGES][0] < 40

    def test_a_tensor_that_does_not_move_is_sent_as_zeros_for_ever(self):
        compression = NoCompression(bits=8)
        arrays, memory = compression.open([1e-3]), {}
        for number in range(1, 400):
            context = CompressionContext(0, number, (4,), arrays)
            update = ModelUpdate("a", number, 5, np.zeros(4, np.float32))
            sent, memory = compression.compress(update, 1.0, context, memory)
            mean, arrays = compression.expand(sent.numbers.astype(np.float64), 1.0, context)
        assert not mean.any()
        assert arrays[RANGES][0] > 0

    def test_the_same_site_and_round_draw_the_same(self):
        compression = NoCompression(bits=3)
        context = CompressionContext(0, 1, GROUPS, compression.open([0.05] * len(GROUPS)))
        vector = RNG.normal(size=LENGTH, scale=0.01).astype(np.float32)
        draws = [
            compression.compress(ModelUpdate(site, 1, 5, vector), 0.5, context, {})[0].numbers
            for site in ("a", "a", "b")
        ]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize("compression", ALL, ids=NAMES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_at_the_site(compression, bad):
    vector = np.zeros(LENGTH, np.float32)
    vector[7] = bad
    context = CompressionContext(0, 3, GROUPS, compression.open([0.05] * len(GROUPS)))
    with pytest.raises(ConsiliumError, match=r"site-07 in round 3 .*training\.lr"):
        compression.compress(ModelUpdate("site-07", 3, 5, vector), 1.0, context, {})


def test_ties_go_to_the_first_positions():
    np.testing.assert_array_equal(largest(np.float32([1, 3, 1, 1, 3]), 3), [0, 1, 4])
    assert len(largest(np.float32([1, 2]), 0)) == 0


@pytest.mark.parametrize("kind", [TopK, SharedMask])
@pytest.mark.parametrize("density", [0, -0.1, 1.1])
def test_a_density_beyond_its_range_is_refused(kind, density):
    with pytest.raises(ValueError, match="density"):
        kind(density=density)


@pytest.mark.parametrize("bits", [1, 17, 0])
def test_bits_beyond_their_range_are_refused(bits):
    with pytest.raises(ValueError, match="bits"):
        NoCompression(bits=bits)


def test_a_strategy_that_sends_nothing_has_nothing_to_expand():
    compression = NoCompression()
    context = CompressionContext(0, 1, (), compression.open([]))
    empty = np.zeros(0, np.float32)
    sent, _ = compression.compress(ModelUpdate("a", 1, 5, empty), 1.0, context, {})
    mean, _ = compression.expand(sent.numbers.astype(np.float64), 1.0, context)
    assert mean.shape == (0,)
