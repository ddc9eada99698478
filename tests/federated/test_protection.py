import numpy as np
import pytest

from federated.compression import NoCompression
from federated.errors import ConsiliumError
from federated.protection import Plain
from federated.update import CompressedUpdate, ModelUpdate

RNG = np.random.default_rng(0)


def compressed(site, values, cases=10, round_number=1):
    return CompressedUpdate(site, round_number, cases, len(values), values.astype(np.float32))


def test_the_sum_of_payloads_is_the_weighted_mean():
    vectors = RNG.normal(size=(3, 50))
    weights = [0.5, 0.3, 0.2]
    running = Plain().open_sum(50)
    for index, (vector, weight) in enumerate(zip(vectors, weights, strict=True)):
        payload = Plain().protect(compressed(f"site-{index}", vector), weight)
        Plain().add(running, payload, 1)
    expected = sum(w * v for w, v in zip(weights, vectors, strict=True))
    np.testing.assert_allclose(Plain().mean(running), expected, rtol=1e-5, atol=1e-7)


def test_the_mean_is_over_those_who_arrived():
    running = Plain().open_sum(4)
    Plain().add(running, Plain().protect(compressed("site-0", np.full(4, 2.0)), 0.25), 1)
    Plain().add(running, Plain().protect(compressed("site-1", np.full(4, 4.0)), 0.25), 1)
    np.testing.assert_allclose(Plain().mean(running), 3.0)


def test_a_plain_payload_is_four_bytes_a_value():
    assert Plain().protect(compressed("site-0", np.zeros(100)), 1.0).body.nbytes == 400


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_at_the_site(bad):
    with pytest.raises(ConsiliumError, match=r"site-07 in round 3 .*training\.lr"):
        Plain().protect(compressed("site-07", np.array([1.0, bad]), round_number=3), 1.0)


@pytest.mark.parametrize("change", [{"round_number": 2}, {"length": 3}, {"scheme": "other"}])
def test_a_payload_of_another_round_length_or_scheme_is_refused(change):
    payload = Plain().protect(compressed("site-0", np.zeros(4)), 1.0)
    payload = type(payload)(**(vars(payload) | change))
    with pytest.raises(ConsiliumError, match="payload of site-0 is refused"):
        Plain().add(Plain().open_sum(4), payload, 1)


def test_no_payload_at_all_is_an_error():
    with pytest.raises(ConsiliumError, match="No update arrived"):
        Plain().mean(Plain().open_sum(4))


def test_no_compression_sends_everything():
    vector = RNG.normal(size=6).astype(np.float32)
    update = ModelUpdate("site-0", 1, 5, vector)
    sent = NoCompression().compress(update)
    np.testing.assert_array_equal(NoCompression().decompress(sent.values, 6), vector)
    with pytest.raises(ValueError, match="do not fill"):
        NoCompression().decompress(sent.values, 7)
