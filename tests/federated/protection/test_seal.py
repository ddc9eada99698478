"""Keys and ciphertexts pass through memory that has no name, and that ends with its process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from federated.protection import PackedBFV, seal
from federated.protection.base import Cohort
from federated.protection.keys import new_run_key
from federated.protection.seal import scratch_file, through_file
from tests.conftest import PROJECT

PARAMETERS = PackedBFV().parameters(100, Cohort(3, 3, 2, 8))
# A process that is stopped for good while a secret key is in its scratch file, by SEAL or by us.
STOPPED = """
import os, sys
from federated.protection import PackedBFV, keys, seal
from federated.protection.base import Cohort
from pathlib import Path

def stop(path):
    content = Path(path).read_bytes()
    assert len(content) > 1000
    print(path, flush=True)
    os.kill(os.getpid(), 9)

parameters = PackedBFV().parameters(100, Cohort(3, 3, 2, 8))
key = keys.new_run_key(parameters)

class Stops:
    def save(self, path):
        secret.save(path)
        stop(path)

if sys.argv[1] == "written":
    secret = key.opened().key
    seal.through_file(Stops().save)
else:
    import tenseal.sealapi as sealapi
    class Loads:
        def load(self, context, path):
            stop(path)
    sealapi.SecretKey = Loads
    key.opened()
"""


def in_memory() -> set[Path]:
    """All files in memory but those of tests, of which there may be thousands."""
    found = set()
    for folder, folders, files in os.walk("/dev/shm"):
        folders[:] = [name for name in folders if not name.startswith("pytest-of-")]
        found |= {Path(folder, name) for name in files}
    return found


@pytest.mark.parametrize("while_it_is", ["written", "read"])
def test_a_process_that_is_killed_over_a_key_leaves_no_file_behind(tmp_path, while_it_is):
    before = in_memory()
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, while_it_is],
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    path = Path(done.stdout.strip())
    assert path.is_absolute()
    # Of this process, in which a file of that number is another one, it is none.
    assert path.parent == Path("/proc/self/fd")
    assert not list(tmp_path.rglob("*"))
    left = in_memory() - before
    assert not [path for path in left if path.name in ("key", "value", "ciphertext")]


def test_where_memory_has_no_path_a_folder_of_the_users_own_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(seal, "OPEN_FILES", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch_file() as path:
        assert path.is_relative_to(tmp_path)
        assert not path.parent.stat().st_mode & 0o077
    key = new_run_key(PARAMETERS)
    assert key.opened().public == key.public
    assert not list(tmp_path.iterdir())


def test_what_is_written_is_what_is_read_and_no_file_stays_open():
    before = len(list(seal.OPEN_FILES.iterdir()))
    content = os.urandom(100_000)
    assert through_file(lambda path: Path(path).write_bytes(content) and None) == content
    with pytest.raises(OSError, match="no room"):
        through_file(lambda path: (_ for _ in ()).throw(OSError("no room")))
    assert len(list(seal.OPEN_FILES.iterdir())) == before
