"""What became of a round's sum: read as it was written, and refused where it is something else."""

from copy import deepcopy

import pytest

from federated.errors import ConsiliumError
from federated.files import read_json, write_json
from federated.run.result import StageResult, Unreported
from federated.run.summed_round import SummedRound, read_summed, write_summed
from federated.run.timing import Interval

SITES = ["site-00", "site-01", "site-02"]
SUMMED = SummedRound(
    2,
    ["site-00", "site-02"],
    {"site-01": "site-01 has no power."},
    None,
    [
        StageResult("site-00", "local_train", 11.0, 14.5, 90.0, 8, 0.7, 0, 12, None),
        StageResult("site-00", "protect", None, None, None, 8, None, 40, 0, float("inf")),
        Unreported("site-02", ("local_train", "compress", "protect"), "it has not arrived"),
    ],
    [Interval(15.0, 16.0)],
    10.0,
    17.0,
)
NAN = float("nan")


@pytest.fixture
def written(tmp_path):
    """The file, and that of the state which belongs to it."""
    path, state = tmp_path / "summed.json", tmp_path / "state.safetensors"
    state.write_bytes(b"weights")
    write_summed(path, SUMMED, state, timed=True)
    return path, state


@pytest.mark.parametrize("sites", [SITES, None])
def test_it_is_read_as_it_was_written(written, sites):
    path, state = written
    assert read_summed(path, 2, sites, state) == SUMMED


def test_without_a_file_nothing_became_of_it(written):
    path, state = written
    path.unlink()
    assert read_summed(path, 2, SITES, state) is None


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("round_number",), 3),
        (("sites",), ["site-00", "site-07"]),
        (("sites",), ["site-00", "site-00"]),
        (("sites",), ["site-00", "site-01"]),
        (("sites",), ["site-00", 2]),
        (("sites",), [["site-00"]]),
        (("sites",), None),
        (("dropped",), {"site-07": "away"}),
        (("dropped",), {"site-01": 3}),
        (("lost",), 3),
        (("lost",), ["lost"]),
        (("began",), "10"),
        (("began",), NAN),
        (("began",), True),
        (("at",), None),
        (("at",), float("inf")),
        (("at",), 10**400),
        (("aggregated", 0, "started"), "15"),
        (("aggregated", 0, "ended"), [16]),
        (("aggregated", 0), {"started": 15.0}),
        (("aggregated",), 3),
        (("stages",), {}),
        (("stages",), "none"),
        (("stages", 0), []),
        (("stages", 0, "site"), "site-07"),
        (("stages", 0, "site"), ["site-00"]),
        (("stages", 0, "stage"), "rest"),
        (("stages", 0, "stage"), ["protect"]),
        (("stages", 0, "started"), NAN),
        (("stages", 0, "ended"), "14"),
        (("stages", 0, "peak_rss_mb"), {}),
        (("stages", 0, "loss"), NAN),
        (("stages", 0, "sent"), "40"),
        (("stages", 0, "received"), None),
        (("stages", 0, "epsilon"), NAN),
        (("stages", 0, "more"), 1),
        (("stages", 2, "stages"), ["rest"]),
        (("stages", 2, "stages"), 3),
        (("stages", 2, "reason"), 3),
    ],
    ids=str,
)
def test_what_is_something_else_is_refused_by_name(written, where, value):
    path, state = written
    changed = deepcopy(read_json(path))
    place = changed
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    write_json(path, changed)
    with pytest.raises(ConsiliumError, match=r"round 2, .*summed\.json, cannot be read \(.*anew"):
        read_summed(path, 2, SITES, state)


def test_of_another_model_it_is_refused(written):
    """As that of another run, or where the state was put in place of another one."""
    path, state = written
    state.write_bytes(b"other weights")
    with pytest.raises(ConsiliumError, match=r"it is of another model than the state of the round"):
        read_summed(path, 2, SITES, state)
