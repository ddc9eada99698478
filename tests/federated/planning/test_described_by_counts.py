"""`auto` of a description: planned from counts, it is what the headers of all images would say."""

import numpy as np
import pytest

from federated.data.folders.described.automatic import _of_pictures, _of_volumes
from federated.data.folders.volume import Volume
from federated.planning.described import provisional, settled_by
from federated.planning.fingerprint import Scheme, fingerprint_of, sum_of
from federated.settings.description import Description

SETS = {
    "small volumes": [((30, 34, 20), (1.0, 1.0, 2.0))] * 3 + [((40, 40, 24), (1.0, 1.0, 2.0))] * 2,
    "large volumes": [((200, 210, 60), (0.5, 0.5, 3.0))] * 4 + [((180, 190, 40), (1, 1, 3.0))],
}


def description(task, kind="volumes", **given):
    labels = {"background": 0, "lesion": 1}
    return Description(task=task, kind=kind, labels=labels, licence="CC0", **given)


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize("name", SETS)
def test_counts_say_what_headers_say(task, name):
    scheme = Scheme(3, 1, 2, voxelwise=False)
    one = np.array([0])
    grids = SETS[name]
    found = sum_of(scheme, [
        fingerprint_of(scheme, [Volume(np.zeros((1, *shape)), np.diag([*sides, 1.0]))], one)
        for shape, sides in grids
    ])  # fmt: skip
    told = description(task)
    by_headers = told.model_copy(update=_of_volumes(
        told, np.array([shape for shape, _ in grids], float), np.array([s for _, s in grids], float)
    ))  # fmt: skip
    ready, auto = provisional(told)
    assert ready.settled
    assert auto == ("spacing", "shape")
    by_counts = settled_by(ready, auto, found)
    assert by_counts.spacing == pytest.approx(by_headers.spacing, rel=0.01)
    assert by_counts.whole == by_headers.whole
    gap = np.array(by_counts.shape) - np.array(by_headers.shape)
    # To the end of a bin of one per cent, a shape may be one step larger.
    assert set(gap) <= {0, 8}


def test_what_is_stated_stays():
    scheme = Scheme(3, 1, 2, voxelwise=True)
    case = fingerprint_of(
        scheme, [Volume(np.ones((1, 30, 30, 30)), np.eye(4))], np.ones((30, 30, 30), int)
    )
    ready, auto = provisional(description("segmentation", spacing=(2, 2, 2)))
    assert auto == ("shape",)
    found = settled_by(ready, auto, sum_of(scheme, [case]))
    assert (found.spacing, found.shape, found.whole) == ((2, 2, 2), (16, 16, 16), True)
    assert provisional(found) == (found, ())


def test_pictures_are_resized_to_about_the_medians_form():
    scheme = Scheme(2, 1, 2, voxelwise=False)
    shapes = [(300, 400), (300, 400), (600, 800)]
    found = sum_of(
        scheme, [fingerprint_of(scheme, [Volume(np.ones((3, *s)), None)], None) for s in shapes]
    )
    told = description("classification", "pictures")
    expected = _of_pictures(told, np.array(shapes, float))
    ready, auto = provisional(told)
    planned = settled_by(ready, auto, found)
    assert (planned.shape, planned.whole) == (expected["shape"], expected["whole"])
