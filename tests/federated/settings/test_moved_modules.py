"""Scripts that import modules by the names they had go on, with a warning."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from federated.settings.moved_modules import MOVED


@pytest.mark.parametrize("now", sorted(MOVED.values()))
def test_every_module_is_where_it_is_said_to_be(now):
    assert find_spec(f"federated.{now}") is not None


def test_an_old_name_gives_the_module_of_now_and_a_warning():
    code = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from federated.prediction import predict_files
    from federated.data.families import FAMILIES
assert any("federated.inference.prediction now" in str(one.message) for one in said)
import federated.inference.prediction as now
from federated.data.folders.families import FAMILIES as same
assert predict_files is now.predict_files and FAMILIES is same
assert now.__name__ == now.__spec__.name == "federated.inference.prediction"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_name_that_never_was_is_none():
    with pytest.raises(ModuleNotFoundError):
        __import__("federated.nothing")
