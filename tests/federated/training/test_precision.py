"""In float16 the scale of the loss falls until gradients fit; the step is taken all the same."""

import pytest
import torch

from federated.training.loop import FIRST_SCALE, Precision

CPU = torch.device("cpu")


def differentiated(slope, scale):
    """The gradient of ``slope`` · x by way of float16, and the scale afterwards."""
    precision = Precision("float32", CPU)
    precision.scale = scale
    x = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([x], lr=1.0)
    loss = precision.differentiate(lambda: (slope * x.half()).float().sum(), optimizer)
    assert float(loss.detach()) == pytest.approx(3 * slope, nan_ok=True)
    return x.grad, precision.scale


@pytest.mark.parametrize(("slope", "scale"), [(0.5, 2.0**15), (2, 2.0**14), (100, 2.0**9)])
def test_it_is_halved_until_every_gradient_is_a_number(slope, scale):
    found, after = differentiated(slope, FIRST_SCALE)
    assert found.tolist() == [slope] * 3
    assert after == scale


def test_what_no_scale_mends_is_left_to_the_loop():
    found, after = differentiated(float("nan"), FIRST_SCALE)
    assert found.isnan().all()
    assert after == 1


def test_without_a_scale_a_gradient_is_taken_as_it_is():
    found, after = differentiated(2, 1.0)
    assert (found.tolist(), after) == ([2.0] * 3, 1.0)
