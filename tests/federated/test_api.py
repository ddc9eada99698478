"""What other programs may use of the library."""

import subprocess
import sys

import federated


def test_every_public_name_is_there_and_has_a_docstring():
    for name in federated.__all__:
        assert getattr(federated, name).__doc__
    assert set(federated.__all__) == set(federated._HOME)
    assert set(federated.__all__) <= set(dir(federated))


def test_importing_the_library_imports_nothing_of_it():
    code = "import sys, federated; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
