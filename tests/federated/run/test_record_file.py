"""A round's record that is damaged is refused in a paragraph that names it."""

import json

import pytest

from federated.errors import ConsiliumError
from federated.run.folder import RunFolder

WHOLE = {
    "round": 1,
    "sites": ["site-00"],
    "dropped": {},
    "lost": None,
    "metrics": {"val": {"auc": 0.75, "loss": None}},
    "epsilon_rdp": None,
    "per_site": {"site-00": {"cases": {}, "train_loss": 1.5, "val": {"auc": 0.5}}},
    "seconds": {"total": 2.0, "local_train": None},
}
DAMAGED = {
    "empty": "",
    "half": json.dumps(WHOLE)[:40],
    "a list": "[]",
    "of another round": WHOLE | {"round": 2},
    "without a round": {k: v for k, v in WHOLE.items() if k != "round"},
    "without sites": {k: v for k, v in WHOLE.items() if k != "sites"},
    "sites that are no names": WHOLE | {"sites": [1]},
    "no metrics": WHOLE | {"metrics": None},
    "metrics that are none": WHOLE | {"metrics": {"val": {"auc": "high"}}},
    "a split without a table": WHOLE | {"metrics": {"val": 3}},
    "a site's metrics": WHOLE | {"per_site": {"site-00": {"val": {"auc": []}}}},
    "a site without a table": WHOLE | {"per_site": {"site-00": 3}},
    "seconds in words": WHOLE | {"seconds": {"total": "long"}},
    "who was left out": WHOLE | {"dropped": ["site-01"]},
    "epsilon": WHOLE | {"epsilon_rdp": {"site-00": True}},
}


def written(root, content) -> RunFolder:
    folder = RunFolder(root)
    path = folder.record_path(1)
    path.parent.mkdir()
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_whole_record_is_read_as_it_is(tmp_path):
    assert written(tmp_path, WHOLE).records() == [WHOLE]


@pytest.mark.parametrize("which", DAMAGED)
def test_a_damaged_record_is_named(tmp_path, which):
    folder = written(tmp_path, DAMAGED[which])
    with pytest.raises(ConsiliumError, match=r"record of round 1, .*round\.json, cannot be read"):
        folder.records()


def test_not_even_a_number_is_read_of_a_record_that_is_nested_without_end(tmp_path):
    folder = written(tmp_path, '{"round": ' + "[" * 100_000)
    with pytest.raises(ConsiliumError, match="cannot be read"):
        folder.records()
