"""What sites have told of their test cases, kept in the run's folder for its report."""

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.learning import task_of
from federated.run.statistics_file import read_statistics, write_statistics
from tests.federated.report.made_runs import info_of, predictions

INFO = info_of("classification", ("healthy", "ill", "other"))
KIND = task_of(INFO).statistics


@pytest.fixture
def statistics():
    return KIND.of(predictions(INFO, 40, np.random.default_rng(0), 0.5), INFO)


def test_statistics_are_read_as_they_were_written(tmp_path, statistics):
    path = tmp_path / "evaluation.safetensors"
    told = statistics.without({"scores"})
    write_statistics(path, told)
    found = read_statistics(path, KIND.form(INFO))
    assert found.withheld == {"scores"}
    assert found.arrays.keys() == told.arrays.keys()
    assert all((found.arrays[name] == told.arrays[name]).all() for name in told.arrays)
    assert path.stat().st_mode & 0o077 == 0


def test_where_nothing_is_known_there_is_no_file_of_a_round_before(tmp_path, statistics):
    path = tmp_path / "evaluation.safetensors"
    write_statistics(path, statistics)
    write_statistics(path, None)
    assert read_statistics(path, KIND.form(INFO)) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08" + b"\0" * 7 + b"{}      "])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "evaluation.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConsiliumError, match=r"evaluation\.safetensors"):
        read_statistics(path, KIND.form(INFO))


def test_statistics_of_other_classes_are_refused(tmp_path, statistics):
    path = tmp_path / "evaluation.safetensors"
    write_statistics(path, statistics)
    other = info_of("classification", ("healthy", "ill"))
    with pytest.raises(ConsiliumError, match="refused"):
        read_statistics(path, KIND.form(other))
