import os
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path, read_json, writable_folder, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail():
        with atomic_path(tmp_path / "a.json") as temporary:
            temporary.write_text('{"new": ')
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        fail()
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConsiliumError, match=r"Cannot write to the folder .*file/sub"):
        write_json(tmp_path / "file" / "sub" / "a.json", {})


def test_a_read_only_file_system_is_named():
    with pytest.raises(ConsiliumError, match="Cannot write to the folder /proc/consilium"):
        write_json(Path("/proc/consilium/a.json"), {})


@pytest.mark.parametrize("umask", [0o022, 0o000])
def test_folders_made_for_a_private_file_or_in_a_private_folder_are_private(tmp_path, umask):
    tmp_path.chmod(0o755)
    before = os.umask(umask)
    try:
        write_json(tmp_path / "open" / "sub" / "a.json", {})
        write_json(tmp_path / "closed" / "sub" / "a.json", {}, PRIVATE)
        write_json(tmp_path / "closed" / "other" / "a.json", {})
    finally:
        os.umask(before)
    closed = [tmp_path / "closed", tmp_path / "closed" / "sub", tmp_path / "closed" / "other"]
    assert {path.stat().st_mode & 0o777 for path in closed} == {0o700}
    assert (tmp_path / "open" / "sub").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (tmp_path / "closed" / "sub" / "a.json").stat().st_mode & 0o777 == 0o600


class TestWritableFolder:
    """A folder that was made for nothing is not left behind."""

    def test_it_is_there_once_something_was_written(self, tmp_path):
        with writable_folder(tmp_path / "a" / "out", "--out"):
            (tmp_path / "a" / "out" / "x").write_text("x")
        assert (tmp_path / "a" / "out" / "x").read_text() == "x"

    @pytest.mark.parametrize("error", [ConsiliumError("no such site"), KeyboardInterrupt()])
    def test_what_fails_leaves_no_folder_that_was_not_there(self, tmp_path, error):
        (tmp_path / "there").mkdir()

        def fail(out):
            with writable_folder(out, "--out"):
                raise error

        for out in (tmp_path / "a" / "b" / "out", tmp_path / "there", tmp_path / "there" / "out"):
            with pytest.raises(type(error)):
                fail(out)
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
        assert list((tmp_path / "there").iterdir()) == []

    def test_what_was_written_before_it_failed_stays(self, tmp_path):
        def fail():
            with writable_folder(tmp_path / "a" / "out", "--out"):
                (tmp_path / "a" / "out" / "first").write_text("x")
                raise ConsiliumError("the second cannot be read")

        with pytest.raises(ConsiliumError, match="the second"):
            fail()
        assert (tmp_path / "a" / "out" / "first").is_file()
